"""The losses of a distillation step on blocks of scored positions.

Shapes: P scored positions, R of a block, V vocabulary entries.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from idlm_ds.kernels.learn import back_project
from idlm_ds.kernels.projection import ScoreRows, block_rows, blocks
from idlm_ds.objectives.base import mean_of
from idlm_ds.processes.base import Noisy, Process
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.tensor_types import Logits, PerPosition, Positions, SoftInput


@final
@dataclass(frozen=True, slots=True)
class Scored:
    """Positions of a draw at which networks are scored: soft ones, then hard ones."""

    noisy: Noisy
    positions: Positions
    answer_rows: Int[Tensor, " S"]
    """Row of the student's answer at each of the soft positions."""

    @classmethod
    def of(cls, noisy: Noisy, *, with_hard: bool) -> "Scored":
        """Select the positions that cost something; the gap's gradient needs the soft ones only."""
        row = noisy.x_0.row_of(noisy.positions)
        is_soft = row >= 0
        positions = noisy.positions[is_soft]
        if with_hard:
            positions = torch.cat([positions, noisy.positions[~is_soft]])
        return cls(noisy, positions, row[is_soft])

    @property
    def num_soft(self) -> int:
        """How many of ``positions`` are soft."""
        return len(self.answer_rows)

    @property
    def soft_pieces(self) -> list[slice]:
        """Blocks of rows at soft positions."""
        return list(blocks(self.num_soft, self._size))

    @property
    def hard_pieces(self) -> list[slice]:
        """Blocks of rows at hard positions."""
        first, rest = self.num_soft, len(self.positions) - self.num_soft
        return [slice(b.start + first, b.stop + first) for b in blocks(rest, self._size)]

    @property
    def pieces(self) -> list[slice]:
        """All blocks of rows; none has soft and hard ones."""
        return self.soft_pieces + self.hard_pieces

    @property
    def _size(self) -> int:
        return block_rows(self.noisy.x_0.probs.shape[1], self.positions.device)

    def block(self, piece: slice) -> Noisy:
        """Return the draw at some of the rows."""
        return self.noisy.at(self.positions[piece])


@final
class FakeLoss:
    """The diffusion loss of the fake on a student sample; a ``RowLoss``."""

    def __init__(self, process: Process, scored: Scored, answer: ScoreRows) -> None:
        """Take the student's scores at the positions it answered."""
        self._process, self._scored, self._answer = process, scored, answer
        self._buffer = answer.buffer()

    def __call__(self, raw: Logits, piece: slice) -> tuple[PerPosition, Logits]:
        """See ``RowLoss``."""
        target = None
        if piece.stop <= self._scored.num_soft:
            target = self._answer.scores(self._scored.answer_rows[piece], self._buffer)
        return self._process.loss_slope(raw, self._scored.block(piece), target)


class Gap:
    """Teacher loss minus fake loss at soft positions; a ``RowLoss`` of the student's scores."""

    def __init__(
        self,
        process: Process,
        scored: Scored,
        teacher: ScoreRows,
        fake: ScoreRows,
        with_value: bool,
    ) -> None:
        """Take the scores of both networks at ``scored.positions``."""
        self.process, self.scored, self.teacher, self.fake = process, scored, teacher, fake
        self.with_value = with_value
        self._buffers = teacher.buffer(), fake.buffer()
        self.squares = torch.zeros((), dtype=torch.float64, device=scored.positions.device)
        """Squared length of the derivative by the student's scores. Only ``GapWithInput`` measures
        it, where the value is wanted."""

    def __call__(self, raw: Logits, piece: slice) -> tuple[PerPosition, Logits]:
        """See ``RowLoss``."""
        block = self.scored.block(piece)
        return self.process.gap_slope(raw, *self.raw(piece), block, with_value=self.with_value)

    def raw(self, piece: slice) -> tuple[Logits, Logits]:
        """Compute the scores of teacher and fake."""
        teacher, fake = self._buffers
        return self.teacher.scores(piece, teacher), self.fake.scores(piece, fake)

    def transmitted(self) -> Tensor:
        """Return what the networks' hidden states transmit to their input: nothing."""
        return self.teacher.hidden.new_zeros(())

    @torch.no_grad()
    def of_hard(self) -> Tensor:
        """Sum the gap over hard positions, which no gradient leaves; nats, float64."""
        total = torch.zeros((), dtype=torch.float64, device=self.scored.positions.device)
        for piece in self.scored.hard_pieces:
            nats = self.process.gap(*self.raw(piece), self.scored.block(piece))
            total += nats.sum(dtype=torch.float64)
        return total

    @torch.no_grad()
    def metrics(self, num_tokens: int) -> dict[str, Float64[Tensor, "2"]]:
        """Compute both losses (nats per token) and statistics of the student's answer.

        Entropy (nats) and largest probability are means over the positions the student answered;
        the gradient reaches those of them that were noised again.
        """
        scored, device = self.scored, self.scored.positions.device
        losses = torch.zeros(2, dtype=torch.float64, device=device)
        for piece in scored.pieces:
            block = scored.block(piece)
            losses += torch.stack(
                [self.process.loss(raw, block).double().sum() for raw in self.raw(piece)]
            )
        entropy, largest = _spread(scored.noisy.x_0)
        soft = torch.ones(scored.num_soft, device=device)
        return {
            "teacher_loss": mean_of(losses[0], count=num_tokens),
            "fake_loss": mean_of(losses[1], count=num_tokens),
            "entropy": mean_of(entropy),
            "max_prob": mean_of(largest),
            "grad_share": mean_of(soft, count=num_tokens),
        }


@final
class GapWithInput(Gap):
    """The gap where networks are shown something that depends on the student.

    Beside the derivative by the student's scores it makes those by the hidden states of teacher
    and fake, which carry a graph to their input.
    """

    @cached_property
    def _slopes(self) -> list[Tensor]:
        return [torch.zeros_like(rows.hidden) for rows in (self.teacher, self.fake)]

    def __call__(self, raw: Logits, piece: slice) -> tuple[PerPosition, Logits]:
        """See ``RowLoss``."""
        block, judged = self.scored.block(piece), self.raw(piece)
        nats, slope, *others = self.process.gap_slopes(raw, *judged, block)
        for rows, into, other in zip((self.teacher, self.fake), self._slopes, others, strict=True):
            back_project(other, rows.weight.detach(), out=into[piece])
        if self.with_value:
            self.squares += torch.linalg.vector_norm(slope).double().square()
        return nats, slope

    def transmitted(self) -> Tensor:
        """Return a number whose gradient is that of the gap by both networks' hidden states."""
        pairs = zip((self.teacher, self.fake), self._slopes, strict=True)
        return torch.stack([(rows.hidden * slope).sum() for rows, slope in pairs]).sum()


@final
class InputPath:
    """The part of the gap's derivative that came through the networks' input; a ``RowLoss``."""

    def __init__(
        self,
        process: Process,
        scored: Scored,
        x_in: SoftInput,
        slope: Tensor,
        *,
        is_measured: bool,
    ) -> None:
        """Take the derivative by the scores of ``x_in``, one a mixture's entry.

        ``is_measured`` is whether ``squares`` is wanted.
        """
        assert scored.noisy.input_gain is not None
        gain = scored.noisy.input_gain.flatten()[x_in.positions]
        self._process, self._ids, self._slope = process, x_in.ids, slope * gain.to(slope.dtype)
        self._ends = torch.cumsum(x_in.counts, 0)
        self._counts, self._positions = x_in.counts, scored.positions
        self._is_measured = is_measured
        self.squares = torch.zeros((), dtype=torch.float64, device=slope.device)
        """Squared length of the derivative by the student's scores, if measured."""

    def __call__(self, raw: Logits, piece: slice) -> tuple[PerPosition, Logits]:
        """See ``RowLoss``; the value has been counted elsewhere."""
        # Entries (N,) of the mixtures at these rows, and the derivative by their probabilities.
        at = self._positions[piece]
        counts = self._counts[at]
        row = torch.arange(len(at), device=at.device).repeat_interleave(counts)
        within = torch.arange(len(row), device=at.device) - (counts.cumsum(0) - counts)[row]
        entry = (self._ends - self._counts)[at][row] + within
        ids, slope = self._ids[entry], self._slope[entry]
        # Through the softmax: G (v - <G, v>), of which v is zero beside the entries.
        probs = self._process.answer_(raw)
        weighted = probs[row, ids] * slope.to(probs.dtype)
        mean = torch.zeros(len(at), dtype=probs.dtype, device=at.device)
        mean.index_add_(0, row, weighted)
        slopes = probs.mul_(-mean[:, None])
        slopes.index_put_((row, ids), weighted, accumulate=True)
        if self._is_measured:
            self.squares += torch.linalg.vector_norm(slopes).double().square()
        return torch.zeros_like(mean), slopes


def share_of_norm(part: Tensor, rest: Tensor) -> Float64[Tensor, "2"]:
    """Compare the lengths of two parts of a derivative, given their squares: 1 is all the part."""
    part, rest = part.sqrt(), rest.sqrt()
    return mean_of((part / (part + rest)).nan_to_num(0.0))


def _spread(x_0: SoftTokens) -> tuple[PerPosition, PerPosition]:
    """Return entropy and largest probability at each soft position."""
    probs, count = x_0.probs, len(x_0.positions)
    entropy, largest = torch.zeros(2, count, dtype=probs.dtype, device=x_0.positions.device)
    every = torch.arange(count, device=x_0.positions.device)
    for block in blocks(count, block_rows(probs.shape[1], every.device)):
        rows = probs[every[block]]
        entropy[block], largest[block] = torch.special.entr(rows).sum(1), rows.amax(1)
    return entropy, largest
