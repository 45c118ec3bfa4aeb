"""Exact posteriors as a denoiser."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idlm_ds.laboratory.languages import Language
from idlm_ds.models.head import Projection, VocabularyHead
from idlm_ds.tensor_types import NetworkInput, Time

NEVER = -1e4
"""Log-probability of what cannot be: its exponential is zero, and sums of it are finite."""


class ExactTeacher(nn.Module):
    """A denoiser that knows the language.

    Its hidden states are log-posteriors, and its projection is the identity, so that all that
    works on networks works on it. It learns nothing.
    """

    def __init__(
        self,
        language: Language,
        *,
        slip: float = 0.0,
        is_masked: bool = True,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """Take a language.

        Args:
            language: What it knows.
            slip: See ``Language``; above 0, states that are in no sentence have posteriors too.
            is_masked: Whether it is asked about masked words, or about noised ones in a uniform
                family.
            dtype: Of the scores.
        """
        super().__init__()
        self._language, self._slip, self._is_masked = language, slip, is_masked
        size = language.vocab_size if is_masked else language.num_words
        self.projection = Projection(size, size, bias=False, dtype=dtype)
        self.projection.weight = nn.Parameter(torch.eye(size, dtype=dtype), requires_grad=False)

    def forward(
        self, x: NetworkInput, sigma: Time, read: Callable[[VocabularyHead], Tensor]
    ) -> Tensor:
        """See ``Denoiser``; of ``sigma`` (B,), only uniform families' posteriors depend on it."""
        assert isinstance(x, Tensor)
        if self._is_masked:
            probs = F.pad(self._language.posterior(x, slip=self._slip), (0, 1))
        else:
            alpha = torch.exp(-sigma.double())
            probs = self._language.posterior_of_noised(x, alpha, slip=self._slip)
        least = torch.tensor(math.exp(-700.0), dtype=torch.float64)
        scores = torch.where(probs > least, probs.clamp(min=least).log(), NEVER)
        rows = scores.flatten(0, 1).to(self.projection.weight.dtype)
        return read(VocabularyHead(lambda positions: rows[positions], self.projection))
