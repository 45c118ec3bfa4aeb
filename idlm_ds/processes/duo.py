"""Uniform diffusion as the argmax of Gaussian diffusion (Duo, arXiv:2506.10892)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from idlm_ds.kernels.projection import block_rows
from idlm_ds.noise import NORMAL_ROWS, Noise
from idlm_ds.processes.base import Noisy
from idlm_ds.processes.soft_tokens import LazyProbs, SoftTokens
from idlm_ds.processes.uniform import Uniform
from idlm_ds.registry.families import CLOCKS, PROBABILITIES, RELAXATIONS, WORD
from idlm_ds.registry.table import load, look_up
from idlm_ds.schedules.gaussian import DuoClock, GaussianMap
from idlm_ds.tensor_types import Logits, PerPosition, Probs, SoftInput, Time

NEGLIGIBLE = 104.0
"""Scores this far below the largest one have a share of zero in float32."""


@final
@dataclass(frozen=True, slots=True)
class Duo(Uniform):
    """Noise is Gaussian, on the simplex.

    Its argmax is the hard state and indexes the losses, which are those of uniform diffusion.
    Networks are shown ``softmax(w / tau)``: with a distilled teacher (Duo-DCD) everything is the
    same. What is noised of a soft target, and whether a gradient reaches it through what networks
    are shown, is the ``relaxation``.

    Training times are times of ``clock``; the reverse chain walks on ``schedule``.
    """

    clock: DuoClock
    tau: float = 1e-3
    """Temperature of the relaxed input; towards 0 it becomes the hard state."""

    relaxation: str = PROBABILITIES
    """How a soft target is noised; a name of ``RELAXATIONS``."""

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], **arguments: Any) -> "Duo":
        """See base class."""
        row = look_up(CLOCKS, settings["clock"], "process.clock")
        token_map = GaussianMap(arguments["vocab_size"])
        clock = load(row.entry_point)(token_map, *(settings[key] for key in row.settings))
        own = {"tau": settings["tau"], "relaxation": settings["relaxation"]}
        return cls(**arguments, clock=clock, is_unbiased=settings["unbiased"], **own)

    def __post_init__(self) -> None:
        Uniform.__post_init__(self)
        if not self.tau > 0:
            raise ValueError(f"tau must be positive, got {self.tau}")
        if self.relaxation not in RELAXATIONS:
            known = ", ".join(RELAXATIONS)
            raise ValueError(f"relaxation must be one of {known}, got {self.relaxation!r}")

    def corrupt(self, x_0: SoftTokens, t: Time, *, noise: Noise) -> Noisy:
        """See base class.

        Only entries near the largest one have a share in ``softmax(w / tau)`` that float32 can
        hold, so only they are kept.

        Gradient: none reaches ``x_t``. Except where words alone are noised, ``x_in`` passes one to
        ``x_0``, of scale ``1 / tau`` but only where two entries nearly tie.
        """
        length, gamma = x_0.tokens.shape[1], self.clock.gamma(t)
        signal, spread = (torch.sigmoid(g).sqrt() for g in (-gamma, gamma))
        gain, spread = (a.repeat_interleave(length) for a in (signal, spread))
        # What is noised: the target itself, or a word drawn from it at every position.
        noised = x_0
        if self.relaxation != PROBABILITIES and len(x_0.positions):
            tokens = x_0.draw(noise.uniform(length))
            dtype = x_0.probs.dtype
            noised = SoftTokens.hard(tokens, vocab_size=self.vocab_size, dtype=dtype)
        # Gaussian noise on its rows (B * L, V), a few at a time.
        clean = _CleanRows(noised)
        pieces = [
            self._near_the_largest(clean(rows), gain[rows], spread[rows], xi)
            for rows, xi in noise.normal_blocks(length, self.vocab_size)
        ]
        x_t, counts, ids, scores = (torch.cat(part) for part in zip(*pieces, strict=True))
        # Hard state for the losses, relaxed state for the networks.
        x_t = x_t.view(x_0.tokens.shape)
        x_in = SoftInput(scores, ids, counts, (len(x_t), length))
        input_gain = None
        if self.relaxation != WORD:
            input_gain = (gain / self.tau).view(x_t.shape)
            x_in = _led_to(x_0, x_in, input_gain)
        return Noisy(
            x_0=x_0,
            x_t=x_t,
            x_in=x_in,
            at_t=self.clock.at(t),
            positions=self.undecided(x_t),
            input_gain=input_gain,
        )

    def _near_the_largest(
        self, clean: Probs, gain: PerPosition, spread: PerPosition, xi: Logits
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return argmax and number of entries by row, then id and ``w / tau`` by entry."""
        amplitude = gain[:, None].to(clean.dtype)
        xi = xi.to(clean.dtype).mul_(spread[:, None].to(clean.dtype))
        clean = clean.detach()
        w = torch.addcmul(xi, amplitude, clean)
        top, x_t = w.max(1)
        row, ids = (w > (top - NEGLIGIBLE * self.tau)[:, None]).nonzero(as_tuple=True)
        # As two operations, which round alike wherever an entry lies in memory.
        near = xi[row, ids] + amplitude[row, 0] * clean[row, ids]
        return x_t, row.bincount(minlength=len(clean)), ids, near / self.tau


def _led_to(x_0: SoftTokens, x_in: SoftInput, gain: Float[Tensor, "B L"]) -> SoftInput:
    """Lead a graph from an input to the probabilities of its target, if those carry one."""
    if isinstance(x_0.probs, LazyProbs) or not x_0.probs.requires_grad:
        return x_in
    position = x_in.positions
    row = x_0.row_of(position)
    probs = x_0.probs[row.clamp(min=0), x_in.ids]
    path = torch.where(row < 0, 0.0, gain.flatten()[position] * (probs - probs.detach()))
    return replace(x_in, scores=x_in.scores + path)


class _CleanRows:
    """Rows of a target, computed many at a time and handed out a few at a time, in order."""

    def __init__(self, x_0: SoftTokens) -> None:
        self._x_0 = x_0
        device, self._total = x_0.tokens.device, x_0.tokens.numel()
        self._size = max(NORMAL_ROWS, block_rows(x_0.probs.shape[1], device))
        self._start, self._rows = 0, x_0.rows(torch.arange(0, device=device))

    def __call__(self, piece: slice) -> Probs:
        """Return the rows of some positions of the flattened batch."""
        if piece.stop > self._start + len(self._rows):
            stop = min(piece.start + self._size, self._total)
            at = torch.arange(piece.start, stop, device=self._rows.device)
            self._start, self._rows = piece.start, self._x_0.rows(at)
        return self._rows[piece.start - self._start : piece.stop - self._start]
