import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from jaxtyping import install_import_hook

CHECKED = [
    f"idlm_ds.{name}"
    for name in (
        "kernels.long_rows",
        "noise",
        "schedules",
        "processes",
        "objectives",
        "samplers",
        "metrics",
    )
]
# Of the operators, not the forms in Triton, which reads the source of its functions.
KERNELS = Path(__file__).parents[1] / "idlm_ds" / "kernels"
CHECKED += [f"idlm_ds.kernels.{p.parent.name}.reference" for p in KERNELS.glob("*/reference.py")]

unchecked = [name for name in sys.modules if name.startswith(tuple(CHECKED))]
assert not unchecked, f"imported before the hook that checks shapes: {unchecked}"
# Never uninstalled: a module imported inside a test is checked too.
install_import_hook(CHECKED, "beartype.beartype")

if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # Read when Triton is imported, which neither torch nor DeepSpeed does by themselves.
    os.environ.setdefault("TRITON_INTERPRET", "1")
torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded stream for the random inputs of one test."""
    return torch.Generator().manual_seed(0)
