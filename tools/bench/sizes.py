"""Sizes of what is measured, and the networks, family and batches that they make."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, final

import torch
from torch import Generator, Tensor, nn

from idlm_ds.data.loader import Batch, MicroBatch
from idlm_ds.errors import UserError
from idlm_ds.models.dit import DiT, DiTConfig, initial_value
from idlm_ds.models.init import InitialWeights
from idlm_ds.options import ABOVE_0, AT_LEAST_1, Options, option
from idlm_ds.processes.base import Process
from idlm_ds.processes.by_name import make_process
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.recipes.sections import ProcessSection
from idlm_ds.registry.families import FAMILIES, sees_time
from idlm_ds.registry.networks import NETWORKS
from idlm_ds.registry.table import OneOf, default


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes(Options):
    """Sizes."""

    family: Annotated[str, OneOf(FAMILIES)] = option(default(FAMILIES), "diffusion family")
    hidden: int = option(256, "width of a network", rule=AT_LEAST_1)
    blocks: int = option(8, "its blocks", rule=AT_LEAST_1)
    heads: int = option(8, "its attention heads", rule=AT_LEAST_1)
    cond: int = option(128, "width of its time embedding", rule=AT_LEAST_1)
    batch: int = option(8, "sequences", rule=AT_LEAST_1)
    length: int = option(256, "positions of a sequence", rule=AT_LEAST_1)
    vocab: int = option(50_258, "ids, the mask included", rule=AT_LEAST_1)
    t_min: float = option(1e-3, "smallest diffusion time", rule=ABOVE_0)

    @property
    def config(self) -> DiTConfig:
        """Sizes of the network."""
        return DiTConfig(
            vocab_size=self.vocab,
            hidden=self.hidden,
            blocks=self.blocks,
            heads=self.heads,
            cond=self.cond,
            time_conditioning=bool(sees_time(self.family)),
        )

    @property
    def label(self) -> str:
        """The sizes in one line."""
        network = f"{self.blocks} blocks of {self.hidden} ({self.heads} heads)"
        return f"{self.family}, {self.batch} x {self.length} tokens, {self.vocab:,} ids, {network}"

    @classmethod
    def of_recipe(cls, source: str) -> "Sizes":
        """Take the sizes of a distillation recipe and of its teacher.

        Raises:
            UserError: Either cannot be read, or the teacher is of another architecture.
        """
        from idlm_ds.build.saved_model import find_model

        recipe = load_recipe(DistillRecipe, source)
        about = find_model(recipe.teacher.path, "teacher.path").about
        if about.kind != default(NETWORKS):
            raise UserError(
                f"--recipe: its teacher is a {about.kind}; {default(NETWORKS)} is measured"
            )
        shared = ("hidden", "blocks", "heads", "cond")
        return cls(
            family=recipe.process.name,
            batch=recipe.train.micro_batch,
            length=recipe.data.length,
            vocab=about.vocab_size,
            **{name: about.sizes[name] for name in shared},
        )

    def process(self) -> Process:
        """Build the diffusion family."""
        settings = asdict(ProcessSection(name=self.family))
        return make_process(settings, self.vocab, self.vocab - 1)

    def make(self) -> nn.Module:
        """Build a network without values."""
        return DiT(self.config)

    def batch_of(self, step: int, device: torch.device) -> Batch:
        """Draw the batch of a phase."""
        generator = Generator().manual_seed(step)
        tokens = torch.randint(self.vocab - 1, (self.batch, self.length), generator=generator)
        samples = range(step * self.batch, (step + 1) * self.batch)
        return Batch([MicroBatch(tokens.to(device), slice(0, self.batch), samples)], 0.0)


def weights(seed: int) -> InitialWeights:
    """Draw weights of which none is zero, so that every part of a network has a gradient."""
    return InitialWeights(_value, seed=seed)


def _value(name: str, shape: tuple[int, ...], generator: Generator) -> Tensor:
    value = initial_value(name, shape, generator)
    if "adaLN_modulation" in name or name.startswith("output_layer.linear"):
        return torch.randn(shape, generator=generator) * 0.02
    return value


@torch.no_grad()
def filled(
    make: Callable[[], nn.Module],
    source: InitialWeights,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Build a network at rest and give it values."""
    module = make().to(device, dtype)
    for name, parameter in module.named_parameters():
        shape = tuple(parameter.shape)
        parameter.copy_(source.read(name, shape, 0, parameter.numel()).view(shape))
    return module.requires_grad_(False).eval()
