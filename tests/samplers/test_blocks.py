"""Samplers read scores in blocks: what that costs, and that the size of blocks changes nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from idlm_ds.models.dit import DiT, DiTConfig
from idlm_ds.noise import Noise
from idlm_ds.processes.base import Denoiser
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.sedd import SEDD
from idlm_ds.processes.udlm import UDLM
from idlm_ds.samplers.blockwise import sample_blockwise
from idlm_ds.samplers.clamped import Given, sample_clamped
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.schedules.loglinear import LogLinear

V, LENGTH, MASK, BLOCK = 3000, 32, 7, 16
MASKED = MDLM(vocab_size=V, schedule=LogLinear(), mask_id=MASK)
RATIOS = SEDD(vocab_size=V, schedule=LogLinear(), mask_id=MASK)
UNIFORM = UDLM(vocab_size=V, schedule=LogLinear())

Sampler = Callable[[Denoiser, int], Tensor]


def chain(process, **settings) -> Sampler:
    def sample(network: Denoiser, batch: int) -> Tensor:
        noise = Noise(range(batch))
        x = process.prior(batch, LENGTH, noise=noise)
        return (
            SamplerConfig(**{"steps": 2, **settings}).draw(process, network, x, noise=noise).tokens
        )

    return sample


def clamped(network: Denoiser, batch: int) -> Tensor:
    given = Given.of([[3, *[None] * (LENGTH - 2), 9]] * batch)
    config, noise = SamplerConfig(steps=2), Noise(range(batch))
    return sample_clamped(MASKED, network, given, config, noise=noise).tokens


def blockwise(**settings) -> Sampler:
    def sample(network: Denoiser, batch: int) -> Tensor:
        sizes = {"length": LENGTH - 4, "block": LENGTH - 4, "steps": 3}
        prompt, noise = torch.arange(4).expand(batch, -1), Noise(range(batch))
        return sample_blockwise(MASKED, network, prompt, noise=noise, **sizes, **settings).tokens

    return sample


SAMPLERS: dict[str, Sampler] = {
    "mdlm": chain(MASKED),
    "udlm": chain(UNIFORM),
    "greedy": chain(MASKED, tail="greedy"),
    "greedy udlm": chain(UNIFORM, tail="greedy"),
    "nucleus": chain(MASKED, nucleus=0.5, temperature=0.7),
    "analytic": chain(RATIOS, sampler="analytic"),
    "clamped": clamped,
    "blockwise": blockwise(),
    "blockwise, warm": blockwise(temperature=0.6),
    "blockwise, guided": blockwise(guidance=0.8),
}
samplers = pytest.mark.parametrize("sample", SAMPLERS.values(), ids=SAMPLERS.keys())


class Largest(TorchDispatchMode):
    """Entries of the largest tensor that any operation returns."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.entries = max(self.entries, tensor.numel())
        return result


def set_block(monkeypatch, rows: int) -> None:
    for module in ("each", "projection"):
        monkeypatch.setattr(f"idlm_ds.kernels.{module}.block_rows", lambda *_: rows)
    monkeypatch.setattr("idlm_ds.kernels.long_rows.PART", 3 * V)


@pytest.fixture(scope="module")
def network() -> Denoiser:
    made = DiT(DiTConfig(vocab_size=V, hidden=8, blocks=1, heads=2, cond=8)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(std=0.5, generator=generator)
    return made


@samplers
def test_memory_does_not_grow_with_the_number_of_rows_that_are_read(sample, network, monkeypatch):
    set_block(monkeypatch, BLOCK)
    largest = {}
    for batch in (2, 20):
        with Largest() as watched:
            sample(network, batch)
        largest[batch] = watched.entries
    assert largest[20] == largest[2] == BLOCK * V


@samplers
def test_the_size_of_blocks_changes_no_sample(sample, network, monkeypatch):
    drawn = []
    for rows in (1, BLOCK, 1000):
        set_block(monkeypatch, rows)
        drawn.append(sample(network, 3))
    # Products of other sizes are added in another order, which hardly ever changes a token.
    for other in drawn[1:]:
        assert (other == drawn[0]).double().mean() > 0.97
