"""Tensor aliases for public signatures.

Axis letters, with one meaning in the whole package:
    B sequences, L positions of a sequence, V vocabulary entries (mask included),
    P selected positions, indices into a flattened batch: ``b * L + l``, Z entries of a latent.

Suffixes of names mean time (``x_0``, ``x_t``, ``alpha_s``), never shape.

No alias has the axes B, L and V together: with a vocabulary of 126k and 4096 positions, such a
tensor takes 2 GB per sequence. Scores are computed at selected positions only.
"""

from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
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

PerToken: TypeAlias = Float[Tensor, "B L"]

Time: TypeAlias = Float[Tensor, " B"]
"""One diffusion time per sequence, in ``[0, 1]``; 0 is data, 1 is noise."""

Scalar: TypeAlias = Float[Tensor, ""]


@dataclass(frozen=True, slots=True)
class SoftInput:
    """Network input in place of token ids: a mixture of a few tokens at every position.

    A mixture is the softmax over its N_p entries; tokens that are not among them have no share.
    Entries of a position follow each other, and positions are in order.
    """

    scores: Float[Tensor, " N"]
    """Score of each entry; may carry a graph."""

    ids: Int[Tensor, " N"]
    """Token of each entry."""

    counts: Int[Tensor, " P"]
    """Entries of each of the B * L positions, at least one."""

    shape: tuple[int, int]
    """Number of sequences and positions per sequence."""

    @property
    def positions(self) -> Int[Tensor, " N"]:
        """Position of each entry in the flattened batch."""
        every = torch.arange(len(self.counts), device=self.counts.device)
        return every.repeat_interleave(self.counts, output_size=len(self.ids))

    @property
    def requires_grad(self) -> bool:
        """Whether the scores carry a graph."""
        return self.scores.requires_grad

    def detach(self) -> "SoftInput":
        """Return the same mixtures without their graph."""
        return replace(self, scores=self.scores.detach())


@dataclass(frozen=True, slots=True)
class LatentInput:
    """Network input with random numbers beside the tokens, for networks with a latent."""

    x: TokenIds | SoftInput
    """What a network without a latent is shown."""

    z: Float[Tensor, "B L Z"]
    """The latent of every position, zero where none enters."""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of sequences and positions per sequence."""
        batch, length = self.x.shape
        return batch, length

    def __getitem__(self, rows: Int[Tensor, " R"] | slice) -> "LatentInput":
        """Return some of the sequences.

        Raises:
            TypeError: The input is a mixture of tokens, whose entries are no rows.
        """
        if isinstance(self.x, SoftInput):
            raise TypeError("rows of a mixture of tokens cannot be selected")
        return LatentInput(self.x[rows], self.z[rows])


NetworkInput: TypeAlias = TokenIds | SoftInput | LatentInput
