"""DeepSpeed, imported with its accelerator chosen; other modules of this folder take it from here.

The checks of a DeepSpeed file import neither DeepSpeed nor torch, so this folder's ``__init__``
does not either.
"""

import os

import torch

# DeepSpeed picks its accelerator when it is first imported, and warns when it finds none.
if not (torch.cuda.is_available() or torch.xpu.is_available()):
    os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
import deepspeed.ops

__all__ = ["deepspeed"]
