"""The transformer of LLaDA (arXiv:2502.09992), with the parameter names of its release.

Shapes: B sequences, L positions, P selected positions of a flattened batch, V vocabulary entries,
D hidden width, H heads, E width of a head.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from idlm_ds.kernels.rope import rope
from idlm_ds.models.attention import attend
from idlm_ds.models.embed import embed, embedded, latent_projection
from idlm_ds.models.head import Projection, VocabularyHead
from idlm_ds.models.rotary import rotary_angles
from idlm_ds.tensor_types import NetworkInput


@dataclass(frozen=True, kw_only=True, slots=True)
class LLaDAConfig:
    """Sizes of a network; the defaults are those of LLaDA-8B."""

    vocab_size: int = 126_464
    hidden: int = 4096
    blocks: int = 32
    heads: int = 32
    ffn: int = 12_288
    rope_base: float = 500_000.0
    norm_eps: float = 1e-5
    checkpoint_activations: bool = False
    """Keep one hidden state per block and compute the rest again in the backward pass."""
    latent: int = 0
    """Entries of the latent that is shown beside every token; 0 for none."""
    latent_rate: float = 1.0
    """Factor of the projected latent; see ``embed.embedded``."""


class WordEmbedding(nn.Module):
    """``SoftEmbedding`` with the parameter name of the release."""

    def __init__(self, vocab_size: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden))

    def forward(self, ids: Tensor, *mixture: Tensor) -> Tensor:
        return embed(self.weight, ids, *mixture)


class RMSNorm(nn.Module):
    """Root-mean-square norm with a weight, in float32."""

    def __init__(self, hidden: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(hidden))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.float()
        return F.rms_norm(x.float(), weight.shape, weight, self.eps).to(x.dtype)


class LLaDABlock(nn.Module):
    """Attention, then a gated MLP, each behind its norm."""

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        hidden = config.hidden
        self.heads = config.heads
        self.attn_norm = RMSNorm(hidden, config.norm_eps)
        self.q_proj = nn.Linear(hidden, hidden, bias=False)
        self.k_proj = nn.Linear(hidden, hidden, bias=False)
        self.v_proj = nn.Linear(hidden, hidden, bias=False)
        self.attn_out = nn.Linear(hidden, hidden, bias=False)
        self.ff_norm = RMSNorm(hidden, config.norm_eps)
        self.ff_proj = nn.Linear(hidden, config.ffn, bias=False)
        self.up_proj = nn.Linear(hidden, config.ffn, bias=False)
        self.ff_out = nn.Linear(config.ffn, hidden, bias=False)

    def forward(self, x_BLD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x_BLD = x_BLD + self._attention(self.attn_norm(x_BLD), cos, sin)
        h = self.ff_norm(x_BLD)
        return x_BLD + self.ff_out(F.silu(self.ff_proj(h)) * self.up_proj(h))

    def _attention(self, h_BLD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = (
            proj(h_BLD).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = attend(rope(q, cos, sin), rope(k, cos, sin), v)
        return self.attn_out(out.transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """Embedding, blocks and vocabulary projection."""

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = WordEmbedding(config.vocab_size, config.hidden)
        self.blocks = nn.ModuleList(LLaDABlock(config) for _ in range(config.blocks))
        self.ln_f = RMSNorm(config.hidden, config.norm_eps)
        self.ff_out = Projection(config.hidden, config.vocab_size, bias=False)
        self.latent_map = latent_projection(config.latent, config.hidden)

    def forward(self, x: NetworkInput, read: Callable[[VocabularyHead], Tensor]) -> Tensor:
        config, (_, length) = self.config, x.shape
        h = embedded(self.wte, x, self.latent_map, config.latent_rate)
        width = config.hidden // config.heads
        cos, sin = rotary_angles(length, width, device=h.device, base=config.rope_base)
        for block in self.blocks:
            if config.checkpoint_activations:
                # Nothing in a block is random. The reentrant kind cannot be differentiated by
                # ``torch.autograd.grad``, nor does it reach weights behind an input without graph.
                h = checkpoint(block, h, cos, sin, use_reentrant=False, preserve_rng_state=False)
            else:
                h = block(h, cos, sin)
        rows = h.flatten(0, 1)
        return read(VocabularyHead(lambda positions: self.ln_f(rows[positions]), self.ff_out))


class LLaDA(nn.Module):
    """A bidirectional transformer without time conditioning."""

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        self.config = config
        # For the published names, which start with ``model.transformer``.
        self.model = nn.ModuleDict({"transformer": Transformer(config)})

    def forward(
        self, x: NetworkInput, sigma_B: Tensor, read: Callable[[VocabularyHead], Tensor]
    ) -> Tensor:
        """Score the token at a position from all positions, itself included; see ``DiT.forward``.

        Args:
            x: Token ids (B, L), or a mixture of tokens at every position; with a latent beside
                them where the network has one.
            sigma_B: Not used.
            read: Called with the head, which projects positions (P,) to scores (P, V).
        """
        del sigma_B
        return self.model["transformer"](x, read)


def initial_value(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw the initial float32 value of one parameter of a ``LLaDA``."""
    del name
    if len(shape) == 1:
        return torch.ones(shape)
    return torch.empty(shape).normal_(std=0.02, generator=generator)
