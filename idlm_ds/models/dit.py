"""The diffusion transformer of SEDD, MDLM and Duo, with their parameter names.

Shapes: B sequences, L positions, P selected positions of a flattened batch, V vocabulary entries,
D hidden width, C condition width, H heads, E width of a head.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from idlm_ds.kernels.modulate import add_gated, modulate
from idlm_ds.kernels.rope import rope
from idlm_ds.models.attention import attend
from idlm_ds.models.embed import SoftEmbedding, TimeEmbedding, embedded, latent_projection
from idlm_ds.models.head import Projection, VocabularyHead
from idlm_ds.models.rotary import rotary_angles
from idlm_ds.tensor_types import NetworkInput


@dataclass(frozen=True, kw_only=True, slots=True)
class DiTConfig:
    """Sizes of a network."""

    vocab_size: int
    hidden: int
    blocks: int
    heads: int
    cond: int = 128
    mlp_ratio: int = 4
    dropout: float = 0.0
    time_conditioning: bool = False
    checkpoint_activations: bool = False
    """Keep one hidden state per block and compute the rest again in the backward pass."""
    latent: int = 0
    """Entries of the latent that is shown beside every token; 0 for none."""
    latent_rate: float = 1.0
    """Factor of the projected latent; see ``embed.embedded``."""


class ModulatedNorm(nn.Module):
    """Layer norm with a weight and no bias, scaled and shifted by the condition; in float32."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return modulate(x, self.weight, shift, scale)


class Block(nn.Module):
    """Attention and MLP, both modulated and gated by the condition."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden, config.mlp_ratio * config.hidden
        self.heads = config.heads
        self.norm1 = ModulatedNorm(hidden)
        self.attn_qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.attn_out = nn.Linear(hidden, hidden, bias=False)
        self.norm2 = ModulatedNorm(hidden)
        self.mlp = nn.Sequential(
            nn.Linear(hidden, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, hidden)
        )
        self.adaLN_modulation = nn.Linear(config.cond, 6 * hidden)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BLD: Tensor, c_BC: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        chunks = self.adaLN_modulation(c_BC)[:, None].chunk(6, dim=-1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = chunks
        h = self.norm1(x_BLD, shift_a, scale_a)
        x_BLD = add_gated(x_BLD, gate_a, self.dropout(self._attention(h, cos, sin)))
        h = self.norm2(x_BLD, shift_m, scale_m)
        return add_gated(x_BLD, gate_m, self.dropout(self.mlp(h)))

    def _attention(self, h_BLD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, hidden = h_BLD.shape
        qkv = self.attn_qkv(h_BLD).view(batch, length, 3, self.heads, hidden // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        out = attend(rope(q, cos, sin), rope(k, cos, sin), v)
        return self.attn_out(out.transpose(1, 2).reshape(batch, length, hidden))


class OutputLayer(nn.Module):
    """Modulated norm of (P, D) by (P, C), and the vocabulary projection that follows it."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.norm_final = ModulatedNorm(config.hidden)
        self.linear = Projection(config.hidden, config.vocab_size)
        self.adaLN_modulation = nn.Linear(config.cond, 2 * config.hidden)

    def forward(self, h_PD: Tensor, c_PC: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c_PC).chunk(2, dim=-1)
        return self.norm_final(h_PD, shift, scale)


class DiT(nn.Module):
    """A bidirectional transformer that projects to scores only at selected positions."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.vocab_embed = SoftEmbedding(config.vocab_size, config.hidden)
        self.sigma_map = TimeEmbedding(config.cond)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.output_layer = OutputLayer(config)
        self.latent_map = latent_projection(config.latent, config.hidden)

    def forward(
        self, x: NetworkInput, sigma_B: Tensor, read: Callable[[VocabularyHead], Tensor]
    ) -> Tensor:
        """Run the trunk, then let ``read`` project the positions it wants.

        Args:
            x: Token ids (B, L), or a mixture of tokens at every position; with a latent beside
                them where the network has one.
            sigma_B: Total noise; not used without time conditioning.
            read: Called with the head, which projects positions (P,) to scores (P, V).
        """
        _, length = x.shape
        h = embedded(self.vocab_embed, x, self.latent_map, self.config.latent_rate)
        sigma_B = sigma_B.float() if self.config.time_conditioning else torch.zeros_like(sigma_B)
        c = F.silu(self.sigma_map(sigma_B))
        head_dim = self.config.hidden // self.config.heads
        cos, sin = rotary_angles(length, head_dim, device=h.device)
        for block in self.blocks:
            if self.config.checkpoint_activations:
                # The reentrant kind cannot be differentiated by ``torch.autograd.grad``.
                h = checkpoint(block, h, c, cos, sin, use_reentrant=False)
            else:
                h = block(h, c, cos, sin)

        def hidden(positions: Tensor) -> Tensor:
            return self.output_layer(h.flatten(0, 1)[positions], c[positions // length])

        return read(VocabularyHead(hidden, self.output_layer.linear))


def initial_value(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw the initial float32 value of one parameter of a ``DiT``.

    Gates, modulations, biases and the output start at zero, so that every block is the identity
    and the first answer is uniform; the other matrices are uniform in ``1 / sqrt(inputs)``.
    """
    if name.endswith(("norm1.weight", "norm2.weight")) or "norm_final" in name:
        return torch.ones(shape)
    if len(shape) == 1 or "adaLN_modulation" in name or name.startswith("output_layer.linear"):
        return torch.zeros(shape)
    bound = shape[1] ** -0.5
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
