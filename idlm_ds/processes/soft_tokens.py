"""Clean sequences that may be soft at some positions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from idlm_ds.kernels.projection import ScoreRows, block_rows, blocks
from idlm_ds.noise import draw_categorical
from idlm_ds.tensor_types import Logits, PerPosition, Positions, Probs, TokenIds


@final
@dataclass(frozen=True, slots=True)
class LazyProbs:
    """Distributions (P, V) that are computed where they are used, from a network's scores.

    Index it with rows, like the tensor it takes the place of; no graph leads through it.
    """

    rows: ScoreRows
    softmax_: Callable[[Logits], Probs]
    """Turns scores into the distribution of the clean token, in their memory."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and vocabulary entries."""
        return self.rows.shape

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the distributions."""
        return self.rows.dtype

    @property
    def device(self) -> torch.device:
        """Where they are computed."""
        return self.rows.device

    def __getitem__(self, index: Int[Tensor, " R"]) -> Float[Tensor, "R V"]:
        """Compute some of the rows."""
        return self.softmax_(self.rows.scores(index))


@dataclass(frozen=True, slots=True)
class SoftTokens:
    """Sequences that are hard everywhere except at chosen positions.

    The dense form would be a (B, L, V) simplex of which most rows are one-hot; this keeps the
    rows that are not.
    """

    tokens: TokenIds
    """Hard tokens; the entries at ``positions`` mean nothing."""

    positions: Positions
    """Where the sequence is soft."""

    probs: Probs | LazyProbs
    """The distribution at each of ``positions``; a tensor may carry the student's graph."""

    @classmethod
    def hard(
        cls, tokens: TokenIds, *, vocab_size: int, dtype: torch.dtype = torch.float32
    ) -> "SoftTokens":
        """Wrap sequences that are soft nowhere; their rows are of ``dtype`` where laid out."""
        nowhere = torch.empty(0, dtype=torch.long, device=tokens.device)
        nothing = torch.empty(0, vocab_size, dtype=dtype, device=tokens.device)
        return cls(tokens, nowhere, nothing)

    def draw(
        self, uniform: Float[Tensor, "B L"], wanted: Bool[Tensor, "B L"] | None = None
    ) -> TokenIds:
        """Draw hard sequences, block by block.

        Args:
            uniform: A number in ``[0, 1)`` for each position.
            wanted: Where a token is needed, everywhere by default; the tokens at other soft
                positions mean nothing.

        Gradient: none.
        """
        tokens = self.tokens.clone(memory_format=torch.contiguous_format)
        rows = torch.arange(len(self.positions), device=tokens.device)
        if wanted is not None:
            rows = wanted.flatten()[self.positions].nonzero()[:, 0]
        for block in blocks(len(rows), block_rows(self.probs.shape[1], tokens.device)):
            at = self.positions[rows[block]]
            probs = self.probs[rows[block]].detach()
            tokens.view(-1)[at] = draw_categorical(probs, uniform.flatten()[at])
        return tokens

    def expect(self, values: Probs, at: Positions) -> PerPosition:
        """Average ``values`` over the token at each of the positions ``at``.

        Args:
            values: One row of V numbers for each position in ``at``.
            at: Any positions, soft or hard.

        Gradient: reaches ``probs`` and ``values``.
        """
        row = self.row_of(at)
        is_soft = row >= 0
        hard = values.gather(1, self.tokens.flatten()[at][:, None])[:, 0]
        inner = (self.probs[row[is_soft]] * values[is_soft]).sum(-1)
        return hard.masked_scatter(is_soft, inner.to(hard.dtype))

    def pick(self, tokens: TokenIds, at: Positions) -> PerPosition:
        """Look up the probability of the given ``tokens`` at each of the positions ``at``.

        Gradient: reaches ``probs``.
        """
        row = self.row_of(at)
        is_soft = row >= 0
        picked = tokens.flatten()[at]
        hard = (self.tokens.flatten()[at] == picked).to(self.probs.dtype)
        soft = self.probs[row[is_soft]].gather(1, picked[is_soft][:, None])[:, 0]
        return hard.masked_scatter(is_soft, soft)

    def neg_entropy(self, at: Positions) -> PerPosition:
        """Sum ``p log p`` at each of the positions ``at``; zero where the sequence is hard.

        Gradient: reaches ``probs``.
        """
        hard = torch.zeros(len(at), dtype=self.probs.dtype, device=at.device)

        def term(probs: Probs, _: Positions) -> Probs:
            # The logarithm of a bounded number: at zero, 0 log 0 has a value but no derivative.
            return probs * probs.clamp(min=torch.finfo(probs.dtype).tiny).log()

        return self.summed(at, hard, term)

    def summed(
        self, at: Positions, hard: PerPosition, term: Callable[[Probs, Positions], Probs]
    ) -> PerPosition:
        """Sum a function of the probabilities over the vocabulary at each of ``at``.

        Args:
            at: Any positions, soft or hard.
            hard: What the sum is where the sequence is hard.
            term: The summand of soft rows; gets them and which of ``at`` they are.

        Gradient: reaches ``probs``.
        """
        row = self.row_of(at)
        is_soft = row >= 0
        soft = term(self.probs[row[is_soft]], is_soft.nonzero()[:, 0]).sum(-1)
        return hard.masked_scatter(is_soft, soft.to(hard.dtype))

    def rows(self, at: Positions) -> Probs:
        """Lay out the distribution at some positions, one-hot where the sequence is hard.

        Gradient: reaches ``probs``.
        """
        row = self.row_of(at)
        if len(self.positions) == self.tokens.numel():
            return self.probs[row]
        is_soft = row >= 0
        shape = len(at), self.probs.shape[1]
        hard = torch.zeros(shape, dtype=self.probs.dtype, device=at.device)
        hard.scatter_(1, self.tokens.flatten()[at][:, None], 1.0)
        return hard.index_put((is_soft.nonzero()[:, 0],), self.probs[row[is_soft]])

    def row_of(self, at: Positions) -> Int[Tensor, " P"]:
        """Return the row in ``probs`` of each of the positions ``at``, -1 where it is hard."""
        row = torch.full((self.tokens.numel(),), -1, device=self.tokens.device)
        row[self.positions] = torch.arange(len(self.positions), device=self.tokens.device)
        return row[at]
