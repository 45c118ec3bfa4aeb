"""Build the data of a run from its recipe, and the random draws over it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from huggingface_hub.constants import HF_HOME

from idlm_ds.build.locate import HUB, locate
from idlm_ds.data.corpus import read_corpus, split_documents
from idlm_ds.data.index import TRAIN, check_hashes, is_prepared
from idlm_ds.data.loader import Loader
from idlm_ds.data.prepare.documents import TEXT, Reading
from idlm_ds.data.prepared import heldout_rows, open_prepared, training_rows
from idlm_ds.data.rows import Rows
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.data.windows import Windows, in_order, pack
from idlm_ds.engine.dist import World
from idlm_ds.engine.turns import first_makes
from idlm_ds.errors import UserError
from idlm_ds.recipes.schema import Recipe
from idlm_ds.train.step import StepSettings

Data = tuple[Rows, npt.NDArray[np.int64]]

CORPUS = "data.corpus"
STREAM = "hf-stream:"


def find_corpus(spec: str) -> Path | None:
    """Locate the file or folder of ``data.corpus``; None for a streamed data set.

    Raises:
        UserError: It does not exist.
    """
    if spec.startswith(STREAM):
        return None
    if spec.startswith(HUB):
        name = spec.removeprefix(HUB)
        raise UserError(
            f"{CORPUS}: {spec}: a data set is prepared with tools/prepare_data.py --source {spec}, "
            f"or tried out as {STREAM}{name}"
        )
    return locate(spec, CORPUS)


def load_windows(recipe: Recipe, tokenizer: Tokenizer, *, num_heldout: int, world: World) -> Data:
    """Open the training data, and read some held-out rows.

    Collective: every rank must call. The first rank reads all of prepared data and compares it
    with its hashes; of text it reads and tokenizes all, and sends the tokens to the others.

    Raises:
        UserError: The corpus is missing, unreadable, altered or too short, or was prepared with
            another tokenizer.
    """
    path, length = find_corpus(recipe.data.corpus), recipe.data.length
    if path is None:
        return _streamed(recipe, tokenizer, num_heldout)
    if is_prepared(path):
        return _prepared(recipe, path, tokenizer, num_heldout, world)

    def read() -> tuple[npt.NDArray[np.int32], ...]:
        documents = read_corpus(path)
        parts = split_documents(documents, heldout_every=recipe.data.heldout_every)
        return tuple(pack(part, tokenizer) for part in parts)

    train, heldout = first_makes(world, read)
    return Windows(train, length, recipe.seed), in_order(heldout, length, num_heldout)


def _prepared(
    recipe: Recipe, folder: Path, tokenizer: Tokenizer, num_heldout: int, world: World
) -> Data:
    index = open_prepared(folder, tokenizer, CORPUS, length=recipe.data.length)
    # One rank reads and hashes everything; the others wait for its verdict.
    problem = None
    if world.is_first:
        try:
            check_hashes(index, folder, CORPUS)
        except UserError as error:
            problem = str(error)
    if problem := world.agree(problem):
        raise UserError(problem)
    if index.has_spans:
        raise UserError(
            f"{CORPUS}: {folder} says which part of a row is to be learned, which training does "
            "not heed yet; prepare it with --pack wrap"
        )
    rows = training_rows(index, folder, seed=recipe.seed)
    return rows, heldout_rows(index, folder, num_heldout)


def _streamed(recipe: Recipe, tokenizer: Tokenizer, num_heldout: int) -> Data:
    # Imported here, because the datasets library takes a third of a second.
    from idlm_ds.data.prepare.hub import open_hub, preset_of
    from idlm_ds.data.stream import StreamRows

    name, _, revision = recipe.data.corpus.removeprefix(STREAM).partition("@")
    preset = preset_of(name)
    if preset.fields != TEXT or preset.is_one_text:
        raise UserError(
            f"{CORPUS}: {name} is no stream of texts; prepare it with tools/prepare_data.py "
            f"--source {name}"
        )
    data = open_hub(preset, TRAIN, revision or None, Reading(), CORPUS)
    rows = StreamRows(
        data.rows,
        tokenizer,
        detokenizer=preset.detokenizer,
        length=recipe.data.length,
        name=data.state,
        heldout=num_heldout,
        bookmarks=Path(HF_HOME) / "idlm_ds",
    )
    return rows, rows.heldout


def make_loader(recipe: Recipe, windows: Rows, world: World) -> Loader:
    """Make the loader that all engines of a run share."""
    return Loader(
        windows,
        global_batch=recipe.train.global_batch,
        micro_batch=recipe.train.micro_batch,
        rank=world.rank,
        world=world.size,
        device=world.device,
        prefetch=recipe.data.prefetch,
    )


def step_settings(recipe: Recipe, world: World) -> StepSettings:
    """Return the batch arithmetic of a run's steps."""
    return StepSettings(
        seed=recipe.seed,
        global_batch=recipe.train.global_batch,
        length=recipe.data.length,
        reduction=recipe.objective.reduction,
        world=world,
    )
