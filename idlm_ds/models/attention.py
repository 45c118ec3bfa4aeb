"""Full bidirectional attention.

Shapes: B sequences, L positions, H heads, E width of a head.
"""

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

HAS_FLASH_ATTN = importlib.util.find_spec("flash_attn") is not None


def attend(q_BHLE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor) -> Tensor:
    """Apply softmax attention with scale ``E ** -0.5``, no mask and no dropout; (B, H, L, E).

    Uses flash-attn where it is installed and takes the input (a GPU, 16 bits), and PyTorch's
    own fused kernels everywhere else.
    """
    is_half = q_BHLE.dtype in (torch.float16, torch.bfloat16)
    if HAS_FLASH_ATTN and q_BHLE.is_cuda and is_half:
        from flash_attn import flash_attn_func

        q, k, v = (x.transpose(1, 2) for x in (q_BHLE, k_BHLE, v_BHLE))
        return flash_attn_func(q, k, v).transpose(1, 2)
    return F.scaled_dot_product_attention(q_BHLE, k_BHLE, v_BHLE)
