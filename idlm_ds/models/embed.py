"""Token and time embeddings.

Shapes: B sequences, L positions, P positions of a flattened batch, N entries of mixtures,
V vocabulary entries, D hidden width, C condition width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idlm_ds.kernels.soft_embedding import soft_embedding
from idlm_ds.tensor_types import LatentInput, NetworkInput, SoftInput, TokenIds

FREQUENCIES = 256
MAX_PERIOD = 10_000.0


class SoftEmbedding(nn.Module):
    """Look-up for token ids (B, L), weighted means (P, D) for mixtures of tokens.

    Both live in one module so that ZeRO-3 gathers the table for either.
    """

    def __init__(self, vocab_size: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocab_size, hidden))

    def forward(self, ids: Tensor, *mixture: Tensor) -> Tensor:
        return embed(self.embedding, ids, *mixture)


def embed(
    table: Tensor, ids: Tensor, scores: Tensor | None = None, counts: Tensor | None = None
) -> Tensor:
    """Look up rows of a table (V, D), or average them over the entries of each mixture.

    Args:
        table: The embeddings.
        ids: Token ids, (B, L), or (N,) for the entries of mixtures.
        scores: Of the entries of mixtures; see ``SoftInput``.
        counts: Entries of each mixture (P,).

    Gradient: reaches ``table`` and ``scores``. Precision: softmax and mean in float32 or wider.
    """
    if scores is None or counts is None:
        return F.embedding(ids, table)
    return soft_embedding(table, ids, scores, counts)


def latent_projection(latent: int, hidden: int) -> nn.Linear | None:
    """Build the map from a latent of some size to the embedding; None for size 0."""
    return nn.Linear(latent, hidden, bias=False) if latent else None


def latent_std(level: float, *, latent: int, scale: float, rate: float) -> float:
    """Compute the standard deviation of a new projection's numbers.

    Args:
        level: Root mean square of the table of embeddings.
        latent: Entries of the latent, at least 1.
        scale: Root mean square of what ``embedded`` adds, in units of ``level``.
        rate: The factor of the projected latent.
    """
    return scale * level / (rate * latent**0.5)


def embedded(
    embedding: nn.Module,
    x: NetworkInput,
    latent_map: nn.Linear | None = None,
    latent_rate: float = 1.0,
) -> Tensor:
    """Apply an embedding to token ids or mixtures, and add the latent where there is one.

    Args:
        embedding: Of tokens.
        x: What the network is shown.
        latent_map: Projection of the latent (B, L, Z); None in networks without one.
        latent_rate: Factor of the projected latent. Adam moves every weight at the same pace, so
            this factor sets how fast the projection is learnt.

    Returns:
        Hidden states (B, L, D).

    Precision: that of the network.
    Gradient: ``latent_map`` gets that by ``latent_rate`` times its weight. Adam takes no notice of
    such a factor, but clipping would, and slow down all other weights.

    Raises:
        ValueError: A latent is shown to a network without one, or missing for one that has it.
    """
    if not isinstance(x, LatentInput):
        if latent_map is not None:
            raise ValueError("latent: the network needs one, but is shown tokens only")
        return _embedded(embedding, x)
    if latent_map is None:
        raise ValueError("latent: the network has none, but is shown one")
    h = _embedded(embedding, x.x)
    added = latent_map(x.z.to(h.dtype))
    return h + (added + (latent_rate - 1.0) * added.detach())


def _embedded(embedding: nn.Module, x: TokenIds | SoftInput) -> Tensor:
    if not isinstance(x, SoftInput):
        return embedding(x)
    return embedding(x.ids, x.scores, x.counts).view(*x.shape, -1)


class TimeEmbedding(nn.Module):
    """Sinusoids of the total noise, then a two-layer network: (B,) to (B, C)."""

    def __init__(self, cond: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, cond), nn.SiLU(), nn.Linear(cond, cond))

    def forward(self, sigma_B: Tensor) -> Tensor:
        half = FREQUENCIES // 2
        steps = torch.arange(half, dtype=torch.float32, device=sigma_B.device)
        angle = sigma_B.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * steps / half)
        waves = torch.cat([angle.cos(), angle.sin()], dim=-1)
        return self.mlp(waves.to(next(self.mlp.parameters()).dtype))
