"""Tensor aliases for public signatures.

Axis letters, one meaning in the whole package:
    B sequences, L positions of a sequence, V vocabulary entries (the mask included),
    P selected positions, counted through a flattened batch: ``b * L + l``.

Suffixes on names mean time (``x_0``, ``x_t``, ``alpha_s``), never shape.

No alias has the axes B, L and V together. With 126k words and 4096 positions such a tensor takes
2 GB a sequence, so scores exist only at positions somebody asked for.
"""

from dataclasses import dataclass
from typing import TypeAlias

from jaxtyping import Float, Int
from torch import Tensor

TokenIds: TypeAlias = Int[Tensor, "B L"]
"""Hard tokens in ``[0, V)``."""

Positions: TypeAlias = Int[Tensor, " P"]
"""Selected positions of a flattened (B, L) batch, increasing."""

Logits: TypeAlias = Float[Tensor, "P V"]
"""Raw scores of a network at selected positions."""

LogProbs: TypeAlias = Float[Tensor, "P V"]

Probs: TypeAlias = Float[Tensor, "P V"]
"""Rows sum to one."""

PerPosition: TypeAlias = Float[Tensor, " P"]

Time: TypeAlias = Float[Tensor, " B"]
"""One diffusion time per sequence, in ``[0, 1]``; 0 is data, 1 is noise."""

Scalar: TypeAlias = Float[Tensor, ""]


@dataclass(frozen=True, slots=True)
class SoftInput:
    """What a network is shown in place of token ids: a mixture of tokens at every position.

    Networks read it through one method of their embedding, which may take the rows in pieces.
    """

    scores: Logits
    """One row for each of the B * L positions; the mixture is their softmax."""

    shape: tuple[int, int]
    """Sequences and positions of a sequence."""

    @property
    def requires_grad(self) -> bool:
        """Whether a graph leads to it."""
        return self.scores.requires_grad

    def detach(self) -> "SoftInput":
        """The same mixtures without their graph."""
        return SoftInput(self.scores.detach(), self.shape)


NetworkInput: TypeAlias = TokenIds | SoftInput
