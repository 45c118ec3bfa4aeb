"""The data of a run, and the draws that go with it."""

import numpy as np
import numpy.typing as npt

from idlm_ds.compose.places import locate
from idlm_ds.data.corpus import read_corpus, split_documents
from idlm_ds.data.loader import Loader
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.data.windows import Windows, in_order, pack
from idlm_ds.engine.dist import World
from idlm_ds.recipes.schema import DistillRecipe, PretrainRecipe
from idlm_ds.train.program import Draws

Recipe = DistillRecipe | PretrainRecipe


def load_windows(
    recipe: Recipe, tokenizer: Tokenizer, *, num_heldout: int
) -> tuple[Windows, npt.NDArray[np.int64]]:
    """Read and tokenize the corpus: training windows, and some held-out ones.

    Raises:
        UserError: The corpus is missing, unreadable or too short.
    """
    documents = read_corpus(locate(recipe.data.corpus, "data.corpus"))
    train, heldout = split_documents(documents, heldout_every=recipe.data.heldout_every)
    length = recipe.data.length
    windows = Windows(pack(train, tokenizer), length, recipe.seed)
    return windows, in_order(pack(heldout, tokenizer), length, num_heldout)


def make_loader(recipe: Recipe, windows: Windows, world: World) -> Loader:
    """The loader all engines of a run share."""
    return Loader(
        windows,
        global_batch=recipe.train.global_batch,
        micro_batch=recipe.train.micro_batch,
        rank=world.rank,
        world=world.size,
        device=world.device,
        prefetch=recipe.data.prefetch,
    )


def make_draws(recipe: Recipe, world: World) -> Draws:
    """The randomness and arithmetic of a run's batches."""
    return Draws(
        seed=recipe.seed,
        t_min=recipe.process.t_min,
        global_batch=recipe.train.global_batch,
        length=recipe.data.length,
        reduction=recipe.objective.reduction,
        world=world,
    )
