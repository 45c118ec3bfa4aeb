"""Operations are those that PyTorch counts, and rates are those of the device."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from idlm_ds.models.dit import DiT, DiTConfig
from idlm_ds.models.llada import LLaDA, LLaDAConfig
from idlm_ds.objectives.alternation import Phase
from idlm_ds.processes.base import at
from idlm_ds.train.flops import (
    PEAKS,
    Meter,
    measure_product,
    network_flops,
    peak_flops,
    training_flops,
)

B, L, V = 2, 8, 37
CPU = torch.device("cpu")
DIT = DiTConfig(vocab_size=V, hidden=16, blocks=3, heads=2, cond=8, mlp_ratio=3)
LLADA = LLaDAConfig(vocab_size=V, hidden=16, blocks=2, heads=2, ffn=40)


def counted(network: torch.nn.Module, positions: torch.Tensor) -> int:
    # On the meta device attention is the operator that PyTorch has a count for.
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        tokens = torch.zeros(B, L, dtype=torch.long)
        network.to("meta")(tokens, torch.ones(B), at(positions.to("meta")))
    return counter.get_total_flops()


@pytest.mark.parametrize(("make", "config"), [(DiT, DIT), (LLaDA, LLADA)])
def test_a_forward_pass_has_the_operations_that_pytorch_counts(make, config):
    flops = network_flops(config)
    one_each = torch.arange(B) * L
    needed = B * L * flops.trunk(L) + B * flops.row
    assert counted(make(config), one_each) == pytest.approx(needed, rel=1e-12)


@pytest.mark.parametrize(("phase", "passes"), [(Phase.PRETRAIN, 3), (Phase.FAKE, 4)])
def test_a_phase_costs_the_passes_of_its_networks(phase, passes):
    flops = network_flops(DIT)
    half = training_flops(DIT, phase, length=L, rows=0.5)
    assert half == passes * (flops.trunk(L) + 0.5 * flops.row)
    assert training_flops(DIT, phase, length=L) > half


def test_six_operations_a_weight_and_token_are_the_limit_of_wide_networks():
    config = DiTConfig(vocab_size=2, hidden=4096, blocks=2, heads=2)
    weights = 2 * 12 * 4096**2
    needed = training_flops(config, Phase.PRETRAIN, length=8)
    assert needed == pytest.approx(6 * weights, rel=0.05)


def test_unknown_networks_are_refused():
    with pytest.raises(ValueError, match="no count of operations for sizes of kind dict"):
        network_flops({"hidden": 3})


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
    ],
)
def test_known_cards_are_told_by_their_names(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda", 0)) == peak
    assert peak in PEAKS.values()


def test_other_devices_are_measured(monkeypatch):
    monkeypatch.setattr("idlm_ds.train.flops.SHAPES", ((32, 32, 32), (64, 32, 64)))
    assert peak_flops(CPU, torch.float32) > 1e6
    assert measure_product(16, 16, 16, device=CPU, repeats=1) > 1e3


def test_the_share_of_the_peak_is_needed_operations_over_possible_ones():
    config = DiTConfig(vocab_size=13, hidden=16, blocks=1, heads=2, cond=8)
    meter = Meter.of(config, (Phase.FAKE,), length=8, rows=0.5, peak=1e6)
    needed = training_flops(config, Phase.FAKE, length=8, rows=0.5)
    assert meter.mfu(Phase.FAKE, tokens_per_s=3.0) == pytest.approx(3.0 * needed / 1e6)
    assert Meter.of(None, (Phase.FAKE,), length=8, rows=0.5, peak=1e6) is None
