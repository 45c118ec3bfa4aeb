"""Every kernel at a size of the published models, compiled for the GPUs in use.

``python -m idlm_ds.kernels.survey`` writes the registers, stack and shared memory of each as JSON.
It runs in a process of its own, since a process that interprets kernels cannot compile any.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict

import torch

from idlm_ds.kernels.launch import Launch, collecting

ROWS, WIDTH, HIDDEN = 16, 50_258, 768

ARCHITECTURES = (80, 90)


def cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield every operator with a call that launches its kernels, backward ones too."""
    yield from _losses()
    yield from _layers(torch.bfloat16)
    yield from _embeddings()


def _losses() -> Iterator[tuple[str, Callable[[], object]]]:
    from idlm_ds.kernels.draw.triton_impl import draw
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
    yield "masked_loss", lambda: soft_cross_entropy(raw, raw, w, WIDTH - 1)
    yield "masked_loss", lambda: hard_cross_entropy(raw, ids, w, WIDTH - 1)
    yield "entropy_loss", lambda: soft_score_entropy(raw, raw, w, WIDTH - 1)
    yield "entropy_loss", lambda: hard_score_entropy(raw, ids, w, WIDTH - 1)
    yield "uniform_loss", lambda: soft_uniform_loss(raw, raw, *level)
    yield "draw", lambda: draw(raw, w.double())


def _layers(dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], object]]]:
    from idlm_ds.kernels.modulate.triton_impl import add_gated, modulate
    from idlm_ds.kernels.rope.triton_impl import rope

    x = torch.empty(2, 64, HIDDEN, dtype=dtype, requires_grad=True)
    shift, scale = torch.empty(2, 1, 2 * HIDDEN, dtype=dtype).chunk(2, -1)
    heads = x.view(2, 64, HIDDEN // 64, 64).transpose(1, 2)
    angles = torch.empty(64, 32)
    yield "modulate", lambda: modulate(x, x[0, 0].detach(), shift, scale).sum().backward()
    yield "modulate", lambda: add_gated(x, scale, x).sum().backward()
    yield "rope", lambda: rope(heads, angles, angles).sum().backward()


def _embeddings() -> Iterator[tuple[str, Callable[[], object]]]:
    from idlm_ds.kernels.soft_embedding.triton_impl import soft_embedding

    raw = torch.empty(ROWS, WIDTH, requires_grad=True)
    narrow = torch.empty(WIDTH, HIDDEN, dtype=torch.bfloat16)
    wide = torch.empty(WIDTH, HIDDEN)
    yield "soft_embedding", lambda: soft_embedding(raw, narrow).sum().backward()
    yield "soft_embedding, float32", lambda: soft_embedding(raw, wide).sum().backward()


def launches() -> Iterator[tuple[str, Launch]]:
    """Yield what the operators launch, named by operator and kernel."""
    for name, call in cases():
        with collecting() as collected:
            call()
        kernels = [launch.name for launch in collected]
        for index, launch in enumerate(collected):
            is_second = launch.name in kernels[:index]
            yield f"{name}, {launch.name}{' back' if is_second else ''}", launch


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
