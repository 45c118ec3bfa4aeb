"""Initial weights as a function of a seed and a name."""

from collections.abc import Callable

from torch import Generator, Tensor

from idlm_ds.noise import derive_seed

InitialValue = Callable[[str, tuple[int, ...], Generator], Tensor]


class InitialWeights:
    """Initial values, each tensor drawn from its own stream.

    The value of a parameter does not depend on the order in which a network is built, nor on
    how many ranks share it, so a run starts from the same weights at every ZeRO stage.
    """

    label = "initial weights"

    def __init__(self, draw: InitialValue, *, seed: int) -> None:
        self._draw = draw
        self._seed = seed

    def shape(self, name: str) -> tuple[int, ...]:
        """Return (), which stands for any shape."""
        del name
        return ()

    def read(self, name: str, shape: tuple[int, ...], start: int, stop: int) -> Tensor:
        """Return elements ``start`` to ``stop`` of the flattened tensor, float32."""
        generator = Generator().manual_seed(derive_seed(self._seed, "init", name))
        return self._draw(name, shape, generator).flatten()[start:stop]
