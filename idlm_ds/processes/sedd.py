"""Score entropy discrete diffusion with absorbing noise (SEDD, arXiv:2310.16834)."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from idlm_ds.kernels.entropy_gap import entropy_gap
from idlm_ds.kernels.entropy_loss import hard_score_entropy, soft_score_entropy
from idlm_ds.kernels.rows import FORBIDDEN
from idlm_ds.processes.absorbing import Absorbing, ClosedForms
from idlm_ds.processes.base import Noisy
from idlm_ds.tensor_types import Logits, LogProbs, PerPosition


@final
@dataclass(frozen=True, slots=True)
class SEDD(Absorbing):
    """Scores are those of ratios: how much likelier each word makes the sequence than the mask.

    At a masked position the true ratio is ``r p(word)`` with ``r = alpha / (1 - alpha)``, and a
    network's raw score is the log of its ratio over ``r / (V - 1)``. The loss then splits into the
    cross-entropy of the words and a penalty on how far the ratios are from summing to ``r``;
    the README beside this file derives it.
    """

    closed: ClassVar[ClosedForms] = ClosedForms(soft_score_entropy, hard_score_entropy, entropy_gap)

    def loss(self, raw: Logits, noisy: Noisy) -> PerPosition:
        """See base class; the score entropy bound of arXiv:2310.16834 at one drawn t.

        It includes the constant that makes it vanish at the true ratios, also for a soft target.
        """
        score = self._scaled(raw)
        log_total = score.logsumexp(-1)
        # Cross-entropy of the normalised ratios, and how far the ratios are from summing to r.
        log_probs = score - log_total[:, None]
        cross = noisy.x_0.neg_entropy(noisy.positions)
        cross = cross - noisy.x_0.expect(log_probs, noisy.positions)
        misfit = torch.expm1(log_total) - log_total
        return self._weight(noisy, score.dtype) * (cross.to(score.dtype) + misfit)

    def gap(self, raw_teacher: Logits, raw_fake: Logits, noisy: Noisy) -> PerPosition:
        """See base class.

        The sums of ratios enter the value, but only the inner product leads to ``noisy.x_0``.
        """
        teacher, fake = self._scaled(raw_teacher), self._scaled(raw_fake)
        sums = teacher.logsumexp(-1).exp() - fake.logsumexp(-1).exp()
        inner = noisy.x_0.expect(teacher - fake, noisy.positions)
        return self._weight(noisy, teacher.dtype) * (sums - inner)

    def log_ratio(self, raw: Logits, log_r: PerPosition) -> LogProbs:
        """See base class; the mask's own entry means nothing, its ratio is 1 by definition."""
        return self._scaled(raw) + log_r[:, None]

    def _scaled(self, raw: Logits) -> LogProbs:
        """Log of the ratios over ``r``, without the mask: the one place of the parameterisation."""
        wide = raw.to(torch.promote_types(raw.dtype, torch.float32)) - math.log(self.vocab_size - 1)
        is_mask = torch.arange(self.vocab_size, device=raw.device) == self.mask_id
        return torch.where(is_mask, FORBIDDEN, wide)
