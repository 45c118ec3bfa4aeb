"""Clean sequences that may be soft at some positions."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from idlm_ds.noise import Noise, draw_categorical
from idlm_ds.tensor_types import PerPosition, Positions, Probs, TokenIds


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

    probs: Probs
    """The distribution at each of ``positions``; may carry the student's graph."""

    @classmethod
    def hard(cls, tokens: TokenIds, *, vocab_size: int) -> "SoftTokens":
        """Wrap sequences that are soft nowhere."""
        nowhere = torch.empty(0, dtype=torch.long, device=tokens.device)
        return cls(tokens, nowhere, torch.empty(0, vocab_size, device=tokens.device))

    def draw(self, *, noise: Noise) -> TokenIds:
        """Draw hard sequences.

        Gradient: none.
        """
        tokens = self.tokens.clone(memory_format=torch.contiguous_format)
        u = noise.uniform(tokens.shape[1]).flatten()[self.positions]
        tokens.view(-1)[self.positions] = draw_categorical(self.probs.detach(), u)
        return tokens

    def expect(self, values: Probs, at: Positions) -> PerPosition:
        """Average ``values`` over the token at each of the positions ``at``.

        Args:
            values: One row of V numbers for each position in ``at``.
            at: Any positions, soft or hard.

        Gradient: reaches ``probs`` and ``values``.
        """
        row = self._soft_row()[at]
        is_soft = row >= 0
        hard = values.gather(1, self.tokens.flatten()[at][:, None])[:, 0]
        inner = (self.probs[row[is_soft]] * values[is_soft]).sum(-1)
        return hard.masked_scatter(is_soft, inner.to(hard.dtype))

    def pick(self, tokens: TokenIds, at: Positions) -> PerPosition:
        """Look up the probability of the given ``tokens`` at each of the positions ``at``.

        Gradient: reaches ``probs``.
        """
        row = self._soft_row()[at]
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
        row = self._soft_row()[at]
        is_soft = row >= 0
        soft = term(self.probs[row[is_soft]], is_soft.nonzero()[:, 0]).sum(-1)
        return hard.masked_scatter(is_soft, soft.to(hard.dtype))

    def rows(self) -> Probs:
        """Lay out the distribution of every position, one-hot where the sequence is hard.

        Gradient: reaches ``probs``.
        """
        vocab_size = self.probs.shape[1]
        if len(self.positions) == self.tokens.numel():
            return self.probs
        hard = torch.nn.functional.one_hot(self.tokens.flatten(), vocab_size).to(self.probs.dtype)
        return hard.index_put((self.positions,), self.probs)

    def is_soft(self, at: Positions) -> Bool[Tensor, " P"]:
        """Tell at which of the positions ``at`` the sequence is soft."""
        return self._soft_row()[at] >= 0

    def _soft_row(self) -> Tensor:
        """Map every position to its row in ``probs``, or to -1."""
        row = torch.full((self.tokens.numel(),), -1, device=self.tokens.device)
        row[self.positions] = torch.arange(len(self.positions), device=self.tokens.device)
        return row
