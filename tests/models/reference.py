"""Forward passes written straight from their formulas, in float64, with no module of the package.

A state dict and an input go in, scores at every position come out.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def softmax(scores: Tensor) -> Tensor:
    """Over the last axis."""
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return weights / weights.sum(-1, keepdim=True)


def embedded(table: Tensor, x: Tensor) -> Tensor:
    """Rows of ids (B, L), or mean rows under the softmax of scores (B, L, V)."""
    if x.is_floating_point():
        return torch.einsum("blv,vd->bld", softmax(x.double()), table)
    return torch.stack([torch.stack([table[token] for token in row]) for row in x])


def rotated(x: Tensor, base: float) -> Tensor:
    """Apply to each position of (B, L, H, E) its own orthogonal matrix."""
    length, width = x.shape[1], x.shape[3]
    half = width // 2
    matrices = torch.zeros(length, width, width, dtype=x.dtype)
    for position in range(length):
        for i in range(half):
            angle = torch.tensor(position * base ** (-2 * i / width), dtype=x.dtype)
            matrices[position, i, i] = matrices[position, i + half, i + half] = angle.cos()
            matrices[position, i + half, i] = angle.sin()
            matrices[position, i, i + half] = -angle.sin()
    return torch.einsum("lef,blhf->blhe", matrices, x)


def llada(
    weights: Mapping[str, Tensor], x: Tensor, *, blocks: int, heads: int, base: float, eps: float
) -> Tensor:
    """Scores (B, L, V) of a LLaDA."""
    w = {name.removeprefix("model.transformer."): value for name, value in weights.items()}

    def linear(name: str, h: Tensor) -> Tensor:
        return torch.einsum("blj,ij->bli", h, w[f"{name}.weight"].double())

    def norm(name: str, h: Tensor) -> Tensor:
        return w[f"{name}.weight"].double() * h / (h.square().mean(-1, keepdim=True) + eps).sqrt()

    h = embedded(w["wte.weight"].double(), x)
    for i in range(blocks):
        block = f"blocks.{i}"
        seen = norm(f"{block}.attn_norm", h)
        q, k, v = (
            linear(f"{block}.{proj}", seen).unflatten(-1, (heads, -1))
            for proj in ("q_proj", "k_proj", "v_proj")
        )
        products = torch.einsum("blhe,bmhe->bhlm", rotated(q, base), rotated(k, base))
        mixed = torch.einsum("bhlm,bmhe->blhe", softmax(products / q.shape[-1] ** 0.5), v)
        h = h + linear(f"{block}.attn_out", mixed.flatten(2))
        seen = norm(f"{block}.ff_norm", h)
        gate = linear(f"{block}.ff_proj", seen)
        gate = gate / (1 + (-gate).exp())
        h = h + linear(f"{block}.ff_out", gate * linear(f"{block}.up_proj", seen))
    return linear("ff_out", norm("ln_f", h))
