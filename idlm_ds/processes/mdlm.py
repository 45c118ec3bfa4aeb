"""Masked diffusion with the SUBS parameterisation (MDLM, arXiv:2406.07524)."""

from dataclasses import dataclass
from typing import ClassVar, final

from idlm_ds.kernels.masked_gap import masked_gap
from idlm_ds.kernels.masked_loss import hard_cross_entropy, soft_cross_entropy
from idlm_ds.processes.absorbing import Absorbing, ClosedForms
from idlm_ds.processes.base import Noisy
from idlm_ds.tensor_types import Logits, LogProbs, PerPosition


@final
@dataclass(frozen=True, slots=True)
class MDLM(Absorbing):
    """Scores are those of the clean word at a masked position.

    LLaDA's process is this one with its own mask id and a network that is not shown the time.
    """

    closed: ClassVar[ClosedForms] = ClosedForms(soft_cross_entropy, hard_cross_entropy, masked_gap)

    def loss(self, raw: Logits, noisy: Noisy) -> PerPosition:
        """See base class; the integrand of eq. (10) of arXiv:2406.07524v2 at one drawn t."""
        log_probs = self.predict(raw)
        weight = self._weight(noisy, log_probs.dtype)
        return -weight * noisy.x_0.expect(log_probs, noisy.positions)

    def gap(self, raw_teacher: Logits, raw_fake: Logits, noisy: Noisy) -> PerPosition:
        """See base class; every visible position cancels, one inner product remains."""
        advantage = self.predict(raw_teacher) - self.predict(raw_fake)
        weight = self._weight(noisy, advantage.dtype)
        return -weight * noisy.x_0.expect(advantage, noisy.positions)

    def log_ratio(self, raw: Logits, log_r: PerPosition) -> LogProbs:
        """See base class; here the ratios sum to ``r`` by construction."""
        return self.predict(raw) + log_r[:, None]
