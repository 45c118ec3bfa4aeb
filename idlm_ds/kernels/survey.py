"""Every kernel at a size of the published models, compiled for the GPUs in use.

``python -m idlm_ds.kernels.survey`` writes the registers, spills and shared memory of each as JSON.
It runs in a process of its own, since a process that interprets kernels cannot compile any.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict

import torch
from torch import Tensor

from idlm_ds.kernels.launch import Launch, collecting

ROWS, WIDTH = 16, 50_258

ARCHITECTURES = (80, 90)


def cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield every operator with a call that launches its kernels."""
    from idlm_ds.kernels.masked_gap.triton_impl import masked_gap

    yield "masked_gap", lambda: masked_gap(_scores(), _scores(), _scores(), _weight(), WIDTH - 1)


def launches() -> Iterator[tuple[str, Launch]]:
    """Yield what the operators launch, named by operator and kernel."""
    for name, call in cases():
        with collecting() as collected:
            call()
        for launch in collected:
            yield (name if launch.name == name else f"{name}, {launch.name}"), launch


def _scores() -> Tensor:
    return torch.empty(ROWS, WIDTH)


def _weight() -> Tensor:
    return torch.empty(ROWS)


def main() -> None:
    """Write the table."""
    from idlm_ds.kernels.ahead import compile_ahead

    usages = {
        name: {arch: asdict(compile_ahead(launch, arch)) for arch in ARCHITECTURES}
        for name, launch in launches()
    }
    json.dump(usages, sys.stdout)


if __name__ == "__main__":
    main()
