"""Where figures were measured, and how fast products are there."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from bench.sizes import Sizes
from idlm_ds.provenance import git_commit
from idlm_ds.train.flops import measure_product

SQUARE = (1024, 2048)
MOST_COLUMNS = 8192


def use(threads: int, device: str = "cpu") -> torch.device:
    """Set the number of threads and choose the device."""
    torch.set_num_threads(threads)
    return torch.device(device)


def describe(device: torch.device) -> dict[str, Any]:
    """Collect date, commit and machine, for the file of figures."""
    is_cuda = device.type == "cuda"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "cpu": cpu_model(),
        "card": torch.cuda.get_device_name(device) if is_cuda else None,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def cpu_model() -> str:
    """Name the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def product_shapes(sizes: Sizes) -> list[tuple[int, int, int]]:
    """List rows, inner size and columns of products: those that are used, and two squares."""
    rows, hidden = sizes.batch * sizes.length, sizes.hidden
    columns = min(sizes.vocab, MOST_COLUMNS)
    used = [(rows, hidden, 4 * hidden), (rows, hidden, columns), (rows // 2 or 1, hidden, columns)]
    return used + [(size, size, size) for size in SQUARE]


def peak_of_products(sizes: Sizes, device: torch.device) -> float:
    """Measure the best FLOP/s of float32 products over some shapes."""
    return max(measure_product(*shape, device=device) for shape in product_shapes(sizes))
