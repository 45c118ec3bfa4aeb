"""Floating-point operations of networks, counted from their sizes, and what a device can do.

Counted are matrix products, two operations for each multiplication with an addition. Look-ups,
norms, softmax and everything else that is elementwise count nothing.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch

from idlm_ds.models.dit import DiTConfig
from idlm_ds.models.embed import FREQUENCIES
from idlm_ds.models.llada import LLaDAConfig
from idlm_ds.objectives.alternation import Phase

PEAKS = {
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
}
"""Dense bf16 FLOP/s by part of a card's name, the more special name first (data sheets)."""

SHAPES = ((512, 512, 512), (1024, 1024, 1024), (2048, 1024, 2048))
"""Rows, inner size and columns of the products a peak is measured with."""


@final
@dataclass(frozen=True, slots=True)
class NetworkFlops:
    """Operations of a network's forward pass."""

    token: int
    """Of the layers that see every token, for one token."""

    pair: int
    """Of attention, for one pair of positions."""

    sequence: int
    """Of the layers that see a sequence once, such as those of its time."""

    row: int
    """Of the projection to the vocabulary, for one position; and of a dense mixture of tokens."""

    def trunk(self, length: int) -> float:
        """Return the operations of one token of a sequence without its projection."""
        return self.token + self.pair * length + self.sequence / length


def network_flops(config: Any) -> NetworkFlops:
    """Count the operations of a forward pass from the sizes of a network.

    Raises:
        ValueError: The sizes are of a kind that is not known here.
    """
    if isinstance(config, DiTConfig):
        hidden, cond = config.hidden, config.cond
        weights = config.blocks * (4 + 2 * config.mlp_ratio) * hidden**2
        # Time embedding, modulation of two norms and gates in a block, and of the last norm.
        sequence = FREQUENCIES * cond + cond**2 + (6 * config.blocks + 2) * cond * hidden
    elif isinstance(config, LLaDAConfig):
        hidden = config.hidden
        weights = config.blocks * (4 * hidden**2 + 3 * hidden * config.ffn)
        sequence = 0
    else:
        raise ValueError(f"no count of operations for sizes of kind {type(config).__name__}")
    return NetworkFlops(
        token=2 * weights,
        pair=4 * hidden * config.blocks,
        sequence=2 * sequence,
        row=2 * hidden * config.vocab_size,
    )


PASSES = {Phase.FAKE: 4, Phase.STUDENT: 5, Phase.PRETRAIN: 3}
"""Forward passes that a phase is worth: one of each borrowed network and three of the learner,
whose backward pass costs two."""


def training_flops(config: Any, phase: Phase, *, length: int, rows: float = 1.0) -> float:
    """Count the operations that a phase needs for each token of its batch.

    The usual convention of MFU: what is computed again in the backward pass counts once, and
    families that are shown mixtures of tokens count as if they were shown tokens.

    Args:
        config: Sizes of the networks.
        phase: The phase.
        length: Positions of a sequence.
        rows: Share of the positions that are projected to the vocabulary.
    """
    network = network_flops(config)
    return PASSES[phase] * (network.trunk(length) + rows * network.row)


@final
@dataclass(frozen=True, slots=True)
class Meter:
    """What a run's phases cost at least, and what its ranks can do."""

    per_token: Mapping[Phase, float]
    """Operations of a phase for each token of its batch; see ``training_flops``."""

    peak: float
    """FLOP/s of matrix products of all ranks together."""

    @classmethod
    def of(
        cls, config: Any, phases: Iterable[Phase], *, length: int, rows: float, peak: float
    ) -> "Meter | None":
        """Count for the sizes of a run's networks; None for a kind that is not known here."""
        try:
            per_token = {p: training_flops(config, p, length=length, rows=rows) for p in phases}
        except ValueError:
            return None
        return cls(per_token, peak)

    def mfu(self, phase: Phase, tokens_per_s: float) -> float:
        """Return the model's FLOPs utilisation: the share of ``peak`` that is put to use."""
        return self.per_token[phase] * tokens_per_s / self.peak


def peak_flops(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> float:
    """Return the FLOP/s of matrix products: of the data sheet for known cards, else measured."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for part, peak in PEAKS.items():
            if all(word in name for word in part.split()):
                return peak
    return max(measure_product(*shape, device=device, dtype=dtype) for shape in SHAPES)


def measure_product(
    rows: int,
    inner: int,
    columns: int,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    repeats: int = 5,
) -> float:
    """Measure the FLOP/s of ``(rows, inner) @ (inner, columns)``, the best of some repeats."""
    left = torch.ones(rows, inner, device=device, dtype=dtype)
    right = torch.ones(columns, inner, device=device, dtype=dtype).t()
    out = torch.empty(rows, columns, device=device, dtype=dtype)
    best = min(_seconds(lambda: torch.mm(left, right, out=out), device) for _ in range(repeats + 1))
    return 2.0 * rows * inner * columns / best


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Time one call, until the device has finished it."""
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
