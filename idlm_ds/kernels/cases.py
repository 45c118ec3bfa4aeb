"""Every operator with inputs of a given size, and what it has to move and to compute.

For compilation without a GPU and for measurements. Shapes: R rows, V vocabulary entries, B
sequences, L positions, D hidden width.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

HEAD = 64
"""Width of an attention head."""

MIXED = 4
"""Tokens of a mixture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How large inputs are."""

    rows: int = 1024
    vocab: int = 50_258
    hidden: int = 768
    batch: int = 8
    length: int = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """An operator on random inputs, with its backward pass where it has one."""

    folder: str
    name: str
    inputs: Callable[[], tuple[Any, ...]]
    bytes: float
    """Least that a pass over memory of this form moves, backward pass included."""
    flops: float = 0.0
    """Float32 operations, roughly."""

    def run(self, form: str, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
        """Run a form, ``reference`` or ``triton_impl``, and return results and derivatives."""
        operator = getattr(
            importlib.import_module(f"idlm_ds.kernels.{self.folder}.{form}"), self.name
        )
        result = operator(*inputs)
        if isinstance(result, tuple):
            return result
        learned = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
        if not learned:
            return (result,)
        return result, *torch.autograd.grad(result, learned, torch.ones_like(result))


def cases(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    """Yield every operator."""
    yield from _losses(sizes, device)
    yield _draw(sizes, device)
    yield from _layers(sizes, device)
    yield _soft_embedding(sizes, device)


PASSES = {
    # Rows read and written in all passes, and operations for each entry.
    ("masked_gap", "masked_gap"): (3, 7, 40),
    ("entropy_gap", "entropy_gap"): (3, 7, 40),
    ("uniform_gap", "uniform_gap"): (3, 10, 90),
    ("masked_loss", "soft_cross_entropy"): (2, 5, 30),
    ("masked_loss", "hard_cross_entropy"): (1, 3, 15),
    ("entropy_loss", "soft_score_entropy"): (2, 5, 30),
    ("entropy_loss", "hard_score_entropy"): (1, 2, 10),
    ("uniform_loss", "soft_uniform_loss"): (2, 7, 90),
}


def _losses(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    shape = (sizes.rows, sizes.vocab)
    entries = sizes.rows * sizes.vocab

    def inputs(count: int, name: str) -> tuple[Any, ...]:
        first = torch.randn(shape, device=device)
        raw = [first, *(first + torch.randn(shape, device=device) for _ in range(count - 1))]
        ids = torch.arange(sizes.rows, device=device) % (sizes.vocab - 1)
        weight = torch.ones(sizes.rows, device=device)
        if "uniform" in name:
            level = weight.double() / 2
            return *raw, level / sizes.vocab, level, level / sizes.vocab, ids
        return *raw, *((ids,) if "hard" in name else ()), weight, sizes.vocab - 1

    for (folder, name), (count, passes, operations) in PASSES.items():
        yield Case(
            folder=folder,
            name=name,
            inputs=partial(inputs, count, name),
            bytes=4.0 * passes * entries,
            flops=float(operations * entries),
        )


def _draw(sizes: Sizes, device: torch.device) -> Case:
    def inputs() -> tuple[Tensor, Tensor]:
        probs = torch.randn(sizes.rows, sizes.vocab, device=device).softmax(1)
        return probs, torch.rand(sizes.rows, dtype=torch.float64, device=device)

    entries = sizes.rows * sizes.vocab
    return Case(folder="draw", name="draw", inputs=inputs, bytes=4.0 * entries, flops=2.0 * entries)


def _layers(sizes: Sizes, device: torch.device) -> Iterator[Case]:
    count = sizes.batch * sizes.length * sizes.hidden

    def states() -> Tensor:
        shape = (sizes.batch, sizes.length, sizes.hidden)
        return torch.randn(shape, device=device, dtype=torch.bfloat16).requires_grad_()

    def condition() -> Tensor:
        shape = (sizes.batch, 1, sizes.hidden)
        return torch.randn(shape, device=device, dtype=torch.bfloat16).requires_grad_()

    def norm() -> tuple[Tensor, ...]:
        weight = torch.ones(sizes.hidden, device=device, dtype=torch.bfloat16)
        return states(), weight.requires_grad_(), condition(), condition()

    def heads() -> tuple[Tensor, ...]:
        x = states().unflatten(-1, (sizes.hidden // HEAD, HEAD)).transpose(1, 2).detach()
        angle = torch.rand(sizes.length, HEAD // 2, device=device)
        return x.requires_grad_(), angle.cos(), angle.sin()

    yield Case(
        folder="modulate", name="modulate", inputs=norm, bytes=10.0 * count, flops=40.0 * count
    )
    yield Case(
        folder="modulate",
        name="add_gated",
        inputs=lambda: (states(), condition(), states()),
        bytes=12.0 * count,
        flops=5.0 * count,
    )
    yield Case(folder="rope", name="rope", inputs=heads, bytes=8.0 * count, flops=6.0 * count)


def _soft_embedding(sizes: Sizes, device: torch.device) -> Case:
    positions = sizes.batch * sizes.length
    entries = MIXED * positions

    def inputs() -> tuple[Tensor, ...]:
        table = torch.randn(sizes.vocab, sizes.hidden, device=device, dtype=torch.bfloat16)
        ids = torch.randint(sizes.vocab, (entries,), device=device)
        scores = torch.randn(entries, device=device)
        counts = torch.full((positions,), MIXED, device=device)
        return table.requires_grad_(), ids, scores.requires_grad_(), counts

    # Rows of entries are read for the mean and for the derivative by scores; their summands of
    # the derivative by the table are written and read. The mean is written, its derivative read
    # twice, and that of the table written.
    rows = 4 * entries + 3 * positions + sizes.vocab
    return Case(
        folder="soft_embedding",
        name="soft_embedding",
        inputs=inputs,
        bytes=2.0 * rows * sizes.hidden,
        flops=6.0 * entries * sizes.hidden,
    )
