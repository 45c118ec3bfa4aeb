"""A student's latent: the network that has it, and the projection it starts with."""

from collections.abc import Callable
from dataclasses import replace
from typing import final

import torch
from torch import Generator, Tensor

from idlm_ds.build.networks import Network, known_network
from idlm_ds.checkpoints.formats.plans import plan_of
from idlm_ds.checkpoints.model_folder import NetworkCard
from idlm_ds.engine.weights import WeightSource
from idlm_ds.errors import UserError
from idlm_ds.models.embed import latent_std
from idlm_ds.models.init import InitialWeights
from idlm_ds.recipes.student import LatentSection
from idlm_ds.registry.networks import NETWORKS

CHUNK = 2**24
"""Numbers of an embedding table that are read at a time."""


def with_latent(
    network: Network, section: LatentSection, *, checkpoint_activations: bool = False
) -> Network:
    """Give a network a latent.

    Raises:
        UserError: Its kind takes none.
    """
    if not section.size:
        return network
    assert isinstance(network.card, NetworkCard)
    kind = network.card.network["kind"]
    if not (NETWORKS[kind].plan and plan_of(kind).latent):
        raise UserError(f"student.latent.size: a network of kind {kind} takes no latent")
    sizes = {**network.card.network, "latent": section.size, "latent_rate": section.rate}
    card = replace(network.card, network=sizes)
    return known_network(card, checkpoint_activations=checkpoint_activations)


@final
class WithProjection:
    """The weights of a network without a latent, and a new projection of one.

    What the projection adds to an embedding has ``scale`` times the root mean square of the table
    of embeddings. It is the same at every ZeRO stage and on any number of ranks.
    """

    def __init__(
        self, source: WeightSource, network: Network, section: LatentSection, *, seed: int
    ) -> None:
        """Read the table of embeddings, to measure it.

        Args:
            source: The weights.
            network: With the latent.
            section: Size, scale and rate.
            seed: Of the run.
        """
        assert isinstance(network.card, NetworkCard)
        plan = plan_of(network.card.network["kind"])
        with torch.device("meta"):
            shape = tuple(network.make().get_parameter(plan.embedding).shape)
        level = root_mean_square(source, plan.embedding, shape)
        std = latent_std(level, latent=section.size, scale=section.scale, rate=section.rate)
        self.label = source.label
        self._source, self._name = source, plan.latent
        self._projection = InitialWeights(normal(std), seed=seed)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """See ``WeightSource``."""
        return self._of(name).shape(name)

    def read(self, name: str, shape: tuple[int, ...], start: int, stop: int) -> Tensor:
        """See ``WeightSource``."""
        return self._of(name).read(name, shape, start, stop)

    def _of(self, name: str) -> WeightSource:
        return self._projection if name == self._name else self._source


def root_mean_square(source: WeightSource, name: str, shape: tuple[int, ...]) -> float:
    """Measure the numbers of a tensor, in float64 and a few at a time."""
    total, count = 0.0, torch.Size(shape).numel()
    for start in range(0, count, CHUNK):
        values = source.read(name, shape, start, min(count, start + CHUNK))
        total += values.double().square().sum().item()
    return float((total / count) ** 0.5)


def normal(std: float) -> Callable[[str, tuple[int, ...], Generator], Tensor]:
    """Return an initial value that is normal with a standard deviation."""

    def draw(name: str, shape: tuple[int, ...], generator: Generator) -> Tensor:
        del name
        return std * torch.randn(shape, generator=generator)

    return draw
