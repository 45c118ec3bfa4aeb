"""The published training step: both phases, dense, in one graph."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.published import Published
from idlm_ds.engine.trio import Borrowed, one_learns


@dataclass(frozen=True, slots=True)
class PublishedStep:
    """Networks, and the family they are trained in."""

    roles: Mapping[str, Borrowed]
    family: Published
    t_min: float
    lr: float

    def fake_phase(self, tokens: Tensor) -> float:
        """Let the fake learn from the student's answer; return its loss."""
        with one_learns(self.roles, "fake") as networks:
            with torch.no_grad():
                target = self.family.answer(networks["student"], self._given(tokens))
                draw = self.family.noised(target, self._times(tokens))
            loss = self.family.loss(target, self.family.raw(networks["fake"], draw), draw)
            self.roles["fake"].backward(loss)
        value = loss.item()
        self.roles["fake"].step(self.lr)
        return value

    def student_phase(self, tokens: Tensor) -> float:
        """Let the student descend the gap, through teacher and fake where they see its answer."""
        with one_learns(self.roles, "student") as networks:
            target = self.family.answer(networks["student"], self._given(tokens))
            draw = self.family.noised(target, self._times(tokens))
            teacher, fake = (self.family.raw(networks[name], draw) for name in ("teacher", "fake"))
            gap = self.family.gap(target, teacher, fake, draw)
            self.roles["student"].backward(gap)
        value = gap.item()
        self.roles["student"].step(self.lr)
        return value

    def _times(self, tokens: Tensor) -> Tensor:
        return self.family.times(len(tokens), self.t_min)

    def _given(self, tokens: Tensor):
        return self.family.given(tokens, self._times(tokens))
