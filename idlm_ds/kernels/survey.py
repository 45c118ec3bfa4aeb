"""Every kernel at a size of the published models, compiled for the GPUs in use.

``python -m idlm_ds.kernels.survey`` writes the registers, spills and shared memory of each as JSON.
It runs in a process of its own, since a process that interprets kernels cannot compile any.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict

import torch

from idlm_ds.kernels.launch import Launch, collecting

ROWS, WIDTH = 16, 50_258

ARCHITECTURES = (80, 90)


def cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield every operator with a call that launches its kernels."""
    from idlm_ds.kernels.entropy_gap.triton_impl import entropy_gap
    from idlm_ds.kernels.entropy_loss.triton_impl import hard_score_entropy, soft_score_entropy
    from idlm_ds.kernels.masked_gap.triton_impl import masked_gap
    from idlm_ds.kernels.masked_loss.triton_impl import hard_cross_entropy, soft_cross_entropy
    from idlm_ds.kernels.uniform_gap.triton_impl import uniform_gap
    from idlm_ds.kernels.uniform_loss.triton_impl import soft_uniform_loss

    raw, w, ids = torch.empty(ROWS, WIDTH), torch.empty(ROWS), torch.empty(ROWS).long()
    level = (*(w.double() for _ in range(3)), ids)
    yield "masked_gap", lambda: masked_gap(raw, raw, raw, w, WIDTH - 1)
    yield "entropy_gap", lambda: entropy_gap(raw, raw, raw, w, WIDTH - 1)
    yield "uniform_gap", lambda: uniform_gap(raw, raw, raw, *level)
    yield "soft_cross_entropy", lambda: soft_cross_entropy(raw, raw, w, WIDTH - 1)
    yield "hard_cross_entropy", lambda: hard_cross_entropy(raw, ids, w, WIDTH - 1)
    yield "soft_score_entropy", lambda: soft_score_entropy(raw, raw, w, WIDTH - 1)
    yield "hard_score_entropy", lambda: hard_score_entropy(raw, ids, w, WIDTH - 1)
    yield "soft_uniform_loss", lambda: soft_uniform_loss(raw, raw, *level)


def launches() -> Iterator[tuple[str, Launch]]:
    """Yield what the operators launch, named by operator and kernel."""
    for name, call in cases():
        with collecting() as collected:
            call()
        for launch in collected:
            yield (name if launch.name == name else f"{name}, {launch.name}"), launch


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
