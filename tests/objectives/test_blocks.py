"""A distillation step in blocks of score rows is the one on whole rows, in value and gradient."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from idlm_ds.kernels import projection
from idlm_ds.noise import Noise
from idlm_ds.objectives.alternation import Phase
from idlm_ds.objectives.base import StepInput
from idlm_ds.objectives.idlm import IDLM, INPUT, SAMPLE
from tests import plain_idlm
from tests.tolerances import assert_close
from tests.train.toy import GLOBAL_BATCH, LENGTH, VOCAB, method_of, network

CLOSE = {torch.float64: 1e-10, torch.float32: 2e-6}
"""Distance of two arrays, relative to the norm of the right one; in float32 each is up to 1e-6
from what float64 gives."""

FAMILIES = [
    *[("idlm", family) for family in ("mdlm", "sedd", "udlm", "udlm unbiased", "duo")],
    *[("idlm", "duo word"), ("idlm", "duo straight_through"), ("idlm", "duo unbiased")],
    ("dmd", "duo"),
]
HEAD = "output_layer.linear.weight"
UNSTEADY = ("duo word", "duo straight_through", "duo unbiased")
"""Families with states at which plain float32 itself is up to 1e-5 from float64."""


@pytest.fixture(params=[1, 3, 128], ids="{} rows".format)
def rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setitem(projection.MOST_ROWS, "cpu", request.param)
    return request.param


def step_input(objective: IDLM, *, is_logged: bool = True) -> StepInput:
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, VOCAB - 1, (GLOBAL_BATCH, LENGTH), generator=generator)
    t = torch.linspace(0.2, 0.9, GLOBAL_BATCH, dtype=torch.float64)
    times = {use: t.roll(number) for number, use in enumerate(objective.sample_uses)}
    return StepInput(tokens, {INPUT: t.flip(0), **times}, noise(), step=0, is_logged=is_logged)


def noise() -> Noise:
    return Noise.of_samples(0, "noise", samples=range(GLOBAL_BATCH))


def networks(dtype: torch.dtype) -> dict[str, nn.Module]:
    made = {name: network(k).to(dtype).eval() for k, name in enumerate(("teacher", "fake"))}
    return {**made, "student": network(2).to(dtype).eval()}


def learned(nets: dict[str, nn.Module], learner: str) -> dict[str, nn.Module]:
    for name, net in nets.items():
        net.requires_grad_(name == learner)
    return nets


def whole(objective: IDLM, nets: dict[str, Any], phase: Phase, batch: StepInput) -> Tensor:
    """The loss as one graph over whole rows of scores."""
    same = noise()
    given = objective.student_input(batch.tokens, batch.times[INPUT], noise=same)
    raw = plain_idlm.generate(nets["student"], given)
    x_0, t = objective.process.relax(raw, given), batch.times
    if phase is Phase.FAKE:
        return plain_idlm.fake_loss(objective, nets["fake"], x_0, t[SAMPLE], noise=same).sum()
    judges = nets["teacher"], nets["fake"]
    uses = objective.sample_uses
    gaps = [plain_idlm.gap(objective, *judges, x_0, t[use], noise=same).sum() for use in uses]
    return torch.stack(gaps).mean()


def in_blocks(objective: IDLM, nets: dict[str, Any], phase: Phase, batch: StepInput) -> Tensor:
    return objective.loss(phase, nets, batch).nats.sum()


def gradient(
    form: Callable[..., Tensor], objective: IDLM, phase: Phase, dtype: torch.dtype
) -> dict[str, Tensor | None]:
    """The loss and its derivative by every parameter that learns."""
    nets = learned(networks(dtype), phase.learner)
    parameters = dict(nets[phase.learner].named_parameters())
    loss = form(objective, nets, phase, step_input(objective))
    slopes = torch.autograd.grad(loss, parameters.values(), allow_unused=True)
    return {"loss": loss.detach(), **dict(zip(parameters, slopes, strict=True))}


@pytest.mark.parametrize("noisings", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("phase", [Phase.FAKE, Phase.STUDENT], ids=lambda phase: phase.value)
@pytest.mark.parametrize(("name", "family"), FAMILIES)
def test_blocks_give_the_loss_and_the_gradient_of_whole_rows(
    name, family, phase, dtype, noisings, rows
):
    objective = replace(method_of(name, family), noisings=noisings)
    got = gradient(in_blocks, objective, phase, dtype)
    wanted = gradient(whole, objective, phase, dtype)
    assert wanted[HEAD].abs().max() > 1e-3
    exact = wanted
    if family in UNSTEADY and dtype is torch.float32:
        exact = gradient(whole, objective, phase, torch.float64)
    for key, value in wanted.items():
        assert (got[key] is None) == (value is None), key
        if value is not None:
            size = value.norm().clamp(min=1e-3)
            off = (got[key] - value).norm() / size
            # No further apart than CLOSE, or than twice what plain float32 is from float64.
            plain_off = (value - exact[key]).norm() / size
            assert off < max(CLOSE[dtype], 2 * plain_off), f"{key} is off by {off:.1e}"


@pytest.mark.parametrize("family", ["mdlm", "duo"])
def test_the_gap_is_the_mean_over_noisings_and_the_fake_learns_from_one(family, rows):
    once = method_of("idlm", family)
    thrice = replace(once, noisings=3)
    gap, wanted = (
        gradient(form, thrice, Phase.STUDENT, torch.float64) for form in (in_blocks, whole)
    )
    assert gap["loss"] == pytest.approx(wanted["loss"].item())
    assert_close(gap[HEAD], wanted[HEAD])
    alone = gradient(in_blocks, once, Phase.STUDENT, torch.float64)
    assert (gap[HEAD] - alone[HEAD]).norm() > 0.1 * alone[HEAD].norm()
    fakes = [gradient(in_blocks, method, Phase.FAKE, torch.float64) for method in (once, thrice)]
    assert fakes[0][HEAD].equal(fakes[1][HEAD])


@pytest.mark.parametrize("family", ["duo", "duo straight_through"])
def test_the_share_of_the_input_path_is_that_of_plain_autograd(family, rows):
    objective = method_of("idlm", family)
    direct = replace(objective, is_input_differentiated=False)
    nets = learned(networks(torch.float64), "student")
    metrics = objective.loss(Phase.STUDENT, nets, step_input(objective)).metrics
    total, count = metrics["input_share"].tolist()
    slopes = []
    for each in (objective, direct):
        same, batch = noise(), step_input(each)
        given = each.student_input(batch.tokens, batch.times[INPUT], noise=same)
        raw = plain_idlm.generate(nets["student"], given).detach().requires_grad_()
        x_0, t = each.process.relax(raw, given), batch.times[SAMPLE]
        judges = nets["teacher"], nets["fake"]
        gap = plain_idlm.gap(each, *judges, x_0, t, noise=same).sum()
        slopes.append(torch.autograd.grad(gap, raw)[0])
    path, rest = (slopes[0] - slopes[1]).norm(), slopes[1].norm()
    assert total / count == pytest.approx((path / (path + rest)).item(), rel=1e-6)


@pytest.mark.parametrize("phase", [Phase.FAKE, Phase.STUDENT], ids=lambda phase: phase.value)
@pytest.mark.parametrize(("name", "family"), FAMILIES)
def test_each_network_is_projected_once_however_many_rows_there_are(name, family, phase, rows):
    objective, nets = method_of(name, family), learned(networks(torch.float32), phase.learner)
    calls = dict.fromkeys(nets, 0)
    for role, net in nets.items():

        def count(*_: Any, role: str = role) -> None:
            calls[role] += 1

        net.output_layer.linear.register_forward_pre_hook(count)
    for t in (1e-9, 0.5, 1.0):
        batch = step_input(objective, is_logged=False)
        batch.times.update({INPUT: torch.full((GLOBAL_BATCH,), t, dtype=torch.float64)})
        objective.loss(phase, nets, batch)
    used = nets if phase is Phase.STUDENT else ("fake", "student")
    assert calls == {role: 3 if role in used else 0 for role in nets}


@pytest.mark.parametrize("family", ["mdlm", "sedd", "udlm", "duo", "duo straight_through"])
def test_no_tensor_is_as_large_as_two_blocks_of_scores(family, monkeypatch):
    """Of 32 positions, no more than four rows of scores exist in one tensor."""
    monkeypatch.setitem(projection.MOST_ROWS, "cpu", 4)
    monkeypatch.setattr("idlm_ds.noise.NORMAL_ROWS", 4)
    monkeypatch.setattr("idlm_ds.processes.duo.NORMAL_ROWS", 4)
    seen: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and VOCAB in out.shape:
                seen.append(out.numel() // VOCAB)
            return out

    objective, nets = method_of("idlm", family), networks(torch.float32)
    for phase in (Phase.FAKE, Phase.STUDENT):
        with Watch():
            objective.loss(phase, learned(nets, phase.learner), step_input(objective)).nats.sum()
    # The projection's weight has as many rows as hidden states have entries.
    assert max(size for size in seen if size != nets["fake"].config.hidden) <= 4


@pytest.mark.parametrize("family", ["mdlm", "duo"])
def test_a_frozen_projection_has_no_gradient_and_changes_no_other(family):
    objective = method_of("idlm", family)
    gradients = []
    for is_frozen in (False, True):
        nets = learned(networks(torch.float64), "student")
        projection = nets["student"].output_layer.linear
        projection.requires_grad_(not is_frozen)
        objective.loss(Phase.STUDENT, nets, step_input(objective)).nats.sum().backward()
        assert (projection.weight.grad is None) == is_frozen
        assert (projection.bias.grad is None) == is_frozen
        gradients.append({n: p.grad for n, p in nets["student"].named_parameters()})
    for name, gradient in gradients[1].items():
        if gradient is not None:
            assert gradient.equal(gradients[0][name]), name
    assert gradients[1]["blocks.0.attn_qkv.weight"].abs().max() > 0
