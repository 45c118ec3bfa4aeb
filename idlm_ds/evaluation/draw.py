"""One set of samples, drawn batch by batch over all ranks."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from jaxtyping import Int
from torch import Tensor

from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.evaluation.cell import Cell
from idlm_ds.processes.base import Denoiser, Process
from idlm_ds.provenance import describe_machine
from idlm_ds.samplers.batched import Drawing, sample_batched
from idlm_ds.samplers.reverse import Sampled
from idlm_ds.tensor_types import TokenIds

if TYPE_CHECKING:
    from idlm_ds.engine.dist import World

DrawBatch: TypeAlias = Callable[[Sequence[int]], Sampled]
"""Draws the samples with some indices; a sample depends on its index only."""


@dataclass(frozen=True, slots=True)
class SingleProcess:
    """World size 1, without a process group."""

    device: torch.device
    rank: int = 0
    size: int = 1

    def gather(self, value: Any) -> list[Any]:
        """See ``World``."""
        return [value]

    @classmethod
    def on_any_device(cls) -> "SingleProcess":
        """Return the GPU, where there is one."""
        return cls(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


Ranks: TypeAlias = "World | SingleProcess"


@dataclass(frozen=True, slots=True)
class Drawn:
    """Sequences and what they cost."""

    tokens: TokenIds
    evaluations: Int[Tensor, " B"]
    """Network calls of each sequence."""

    seconds: float
    """Wall time of the whole set."""

    @property
    def nfe(self) -> float:
        """Network calls a sequence."""
        return self.evaluations.sum().item() / len(self.tokens)


def draw_set(
    draw: DrawBatch,
    num_samples: int,
    *,
    batch: int,
    ranks: Ranks,
    progress: Callable[[int], object] = lambda count: None,
) -> Drawn:
    """Draw a set, each rank every ``ranks.size``-th sample of it.

    Ranks that share ZeRO-3 weights must run the network equally often, so one that has fewer
    batches than the first draws a sample that is thrown away. After each batch of this rank,
    ``progress`` is called with the number of its samples; nothing but speed depends on ``batch``.

    Collective: every rank must call; all get the whole set, on the CPU.
    """
    began = time.perf_counter()
    local = range(ranks.rank, num_samples, ranks.size)
    tokens, evaluations = [], []
    for first in range(0, len(range(0, num_samples, ranks.size)), batch):
        indices = local[first : first + batch]
        sampled = draw(indices or [0])
        tokens.append(sampled.tokens[: len(indices)].cpu())
        evaluations.append(sampled.evaluations[: len(indices)].cpu())
        progress(len(indices))
    rows, calls = gather_rows(num_samples, ranks, torch.cat(tokens), torch.cat(evaluations))
    return Drawn(rows, calls, time.perf_counter() - began)


def gather_rows(num_rows: int, ranks: Ranks, *local: Tensor) -> list[Tensor]:
    """Put together tensors of whose rows each rank has every ``ranks.size``-th, on the CPU.

    Collective: every rank must call; all get all rows.
    """
    whole = [torch.empty(num_rows, *rows.shape[1:], dtype=rows.dtype) for rows in local]
    for rank, share in enumerate(ranks.gather([rows.numpy() for rows in local])):
        for rows, of_rank in zip(whole, share, strict=True):
            rows[rank :: ranks.size] = torch.from_numpy(of_rank)
    return whole


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleSet:
    """The samples of a cell, and what they cost."""

    tokens: TokenIds
    texts: Sequence[str]
    nfe: float | None
    """Network calls a sequence; None where nothing was sampled."""

    seconds: float | None
    """Wall time of drawing them all."""

    machine: Mapping[str, Any]
    """Versions, device, number of ranks."""


def draw_cell(
    cell: Cell,
    config: Drawing,
    *,
    process: Process,
    network: Denoiser,
    tokenizer: Tokenizer,
    stream: str,
    batch: int,
    ranks: Ranks,
    progress: Callable[[int], object] = lambda count: None,
) -> SampleSet:
    """Draw the samples of a cell; see ``draw_set``.

    ``stream`` says what they are drawn for, and names the random numbers together with the seed.

    Collective: every rank must call; all get the whole set.
    """
    draw = partial(
        sample_batched,
        process,
        network,
        config=config,
        length=cell.length,
        seed=cell.seed,
        stream=stream,
        batch=batch,
        device=ranks.device,
    )
    drawn = draw_set(draw, cell.num_samples, batch=batch, ranks=ranks, progress=progress)
    return SampleSet(
        tokens=drawn.tokens,
        texts=tokenizer.decode(drawn.tokens.tolist()),
        nfe=drawn.nfe,
        seconds=drawn.seconds,
        machine=describe_machine(ranks.device.type, ranks.size),
    )
