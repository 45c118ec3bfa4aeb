"""Adaptive layer norm and gated residual.

Shapes: B sequences, L positions, D hidden width. A condition has a row for each sequence,
(B, 1, D), or the shape of the hidden states.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5


def modulate(x: Tensor, weight: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Compute ``norm(x) weight (1 + scale) + shift``; the norm has no bias.

    Args:
        x: Hidden states (B, L, D) or (P, D).
        weight: Of the norm (D,).
        shift: The condition's.
        scale: The condition's, of the same shape.

    Gradient: reaches all arguments. Precision: float32 or wider, rounded once at the end.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    normed = F.layer_norm(x.to(wide), x.shape[-1:], weight.to(wide), eps=EPS)
    return torch.addcmul(shift.to(wide), normed, 1 + scale.to(wide)).to(x.dtype)


def add_gated(x: Tensor, gate: Tensor, y: Tensor) -> Tensor:
    """Compute ``x + gate y``.

    Args:
        x: Hidden states (B, L, D) or (P, D).
        gate: The condition's.
        y: What a layer adds to them.

    Gradient: reaches all arguments. Precision: float32 or wider, rounded once at the end.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    return torch.addcmul(x.to(wide), gate.to(wide), y.to(wide)).to(x.dtype)
