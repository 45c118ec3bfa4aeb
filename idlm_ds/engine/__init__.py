"""The only folder that imports DeepSpeed or torch.distributed."""

import os

import torch

# DeepSpeed picks its accelerator when it is first imported, and warns when it finds none.
if not (torch.cuda.is_available() or torch.xpu.is_available()):
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
