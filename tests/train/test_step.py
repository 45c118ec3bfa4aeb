"""One training step, on stubs: who moves, by what gradient, and what is known afterwards."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from idlm_ds.engine.trio import one_learns
from idlm_ds.errors import NumericsError
from idlm_ds.noise import Noise, stratified_times
from idlm_ds.objectives.alternation import Phase
from idlm_ds.objectives.base import StepInput
from idlm_ds.train.step import Program, train_step
from tests import plain_idlm

from .toy import GLOBAL_BATCH, LENGTH, METHODS, batches, program_of


def weights_of(program: Program) -> dict[str, list[torch.Tensor]]:
    return {
        name: [p.detach().clone() for p in role.module.parameters()]
        for name, role in program.roles.items()
    }


@pytest.mark.parametrize(("name", "family"), METHODS)
def test_a_phase_moves_its_own_network_and_leaves_no_gradient(name, family):
    program = program_of(name, family)
    passes = dict.fromkeys(program.roles, 0)
    for step, batch in enumerate(batches(4)):
        learner, before = program.method.plan.phase(step).learner, weights_of(program)
        result = train_step(program, step, batch)
        assert result.report.was_applied
        for role, weights in weights_of(program).items():
            is_same = all(map(torch.equal, weights, before[role]))
            # The student's first gradient is zero only while the fake equals the teacher.
            assert is_same == (role != learner), f"step {step}: {role}"
        for other, role in program.roles.items():
            assert all(p.grad is None and not p.requires_grad for p in role.module.parameters())
            assert not role.module.training
            # What was lent is given back after every pass.
            passes[other] += len(batch.micro_batches) if other != learner else 0
            assert role.releases == passes[other]
            assert not role.is_lent


@pytest.mark.parametrize("family", ["mdlm", "sedd", "udlm", "duo"])
def test_blocks_give_the_gradient_of_one_graph_from_the_student_to_the_gap(family):
    program, (_, batch) = program_of("idlm", family), list(batches(2, micro=GLOBAL_BATCH))
    method, student = program.method, program.roles["student"]
    gradients = []
    step, student.step = (
        student.step,
        lambda lr: (
            gradients.extend(p.grad.clone() for p in student.module.parameters()) or step(lr)
        ),
    )
    train_step(program, 1, batch)
    # The same loss with one graph from the student's parameters to the gap.
    program = program_of("idlm", family)
    (micro,) = batch.micro_batches
    noise = Noise.of_samples(3, "noise", samples=micro.samples)
    t_input, t = (
        stratified_times(3, use, 1, count=GLOBAL_BATCH, t_min=0.1) for use in ("t-input", "t")
    )
    with one_learns(program.roles, "student") as networks:
        assert [n for n, role in program.roles.items() if role.is_lent] == ["teacher", "fake"]
        given = method.student_input(micro.tokens, t_input, noise=noise)
        x_0 = method.process.relax(plain_idlm.generate(networks["student"], given), given)
        nats = plain_idlm.gap(method, networks["teacher"], networks["fake"], x_0, t, noise=noise)
        whole = torch.autograd.grad(
            nats.sum() / (GLOBAL_BATCH * LENGTH), list(program.roles["student"].module.parameters())
        )
    for one, other in zip(gradients, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_student_learns_nothing_from_a_fake_that_equals_the_teacher():
    program = program_of("idlm", "mdlm")
    program.roles["fake"].module.load_state_dict(program.roles["teacher"].module.state_dict())
    (_, batch) = batches(2)
    result = train_step(program, 1, batch, is_logged=True)
    assert result.loss == 0.0
    assert result.report.grad_norm == 0.0
    assert result.metrics["teacher_loss"] == result.metrics["fake_loss"] > 0


@pytest.mark.parametrize(
    "family", ["mdlm", "sedd", "udlm", "duo", "duo straight_through", "duo word"]
)
def test_a_logged_student_phase_says_what_the_gap_is_made_of(family):
    program, quiet = program_of("idlm", family), program_of("idlm", family)
    (_, batch) = batches(2)
    logged, plain = train_step(program, 1, batch, is_logged=True), train_step(quiet, 1, batch)
    assert logged.report == plain.report
    assert plain.loss is None
    assert plain.metrics == {}
    metrics = logged.metrics
    difference = metrics["teacher_loss"] - metrics["fake_loss"]
    assert difference == pytest.approx(logged.loss, rel=1e-3, abs=1e-5)
    assert 0 < metrics["entropy"] < torch.tensor(13.0).log()
    assert 1 / 13 < metrics["max_prob"] < 1
    assert 0 < metrics["grad_share"] <= 1
    if family in ("udlm", "duo"):
        assert metrics["grad_share"] == 1.0
    has_path = family in ("duo", "duo straight_through")
    assert ("input_share" in metrics) == has_path
    if has_path:
        assert 0.1 < metrics["input_share"] < 1


def test_a_certain_student_has_no_entropy_and_its_gradient_only_where_masked_twice():
    program = program_of("idlm", "mdlm")
    with torch.no_grad():
        program.roles["student"].module.output_layer.linear.bias[2] += 1e4
    (_, batch) = batches(2, micro=GLOBAL_BATCH)
    metrics = train_step(program, 1, batch, is_logged=True).metrics
    assert metrics["entropy"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["max_prob"] == pytest.approx(1.0)
    method, (micro,) = program.method, batch.micro_batches
    noise = Noise.of_samples(3, "noise", samples=micro.samples)
    t_input, t = (
        stratified_times(3, use, 1, count=GLOBAL_BATCH, t_min=0.1) for use in ("t-input", "t")
    )
    given = method.student_input(micro.tokens, t_input, noise=noise)
    raw = program.roles["teacher"].module(
        given.x_in, given.at_t.sigma, lambda h: h.scores(given.positions)
    )
    again = method.process.corrupt(method.process.relax(raw, given), t, noise=noise)
    both = set(given.positions.tolist()) & set(again.positions.tolist())
    assert metrics["grad_share"] == pytest.approx(len(both) / (GLOBAL_BATCH * LENGTH))


def test_losses_and_metrics_do_not_depend_on_how_a_batch_is_cut():
    results = []
    for micro in (1, 2, 4):
        (_, batch) = batches(2, micro=micro)
        results.append(train_step(program_of("idlm", "mdlm"), 1, batch, is_logged=True))
    for result in results[1:]:
        assert result.loss == pytest.approx(results[0].loss, rel=1e-5, abs=1e-7)
        assert result.report.grad_norm == pytest.approx(results[0].report.grad_norm, rel=1e-4)
        assert result.metrics == pytest.approx(results[0].metrics, rel=1e-5)


def test_a_loss_that_is_not_finite_moves_nothing():
    program = program_of("nelbo", "mdlm")
    with torch.no_grad():
        program.roles["model"].module.output_layer.linear.bias[0] = torch.nan
    before = weights_of(program)["model"]
    (batch,) = batches(1)
    with pytest.raises(NumericsError, match="step 0: the loss is nan; no weight has been changed"):
        train_step(program, 0, batch)
    for old, new in zip(before, weights_of(program)["model"], strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=0, equal_nan=True)


def test_each_phase_has_its_own_rate_by_its_own_updates():
    program = program_of("dmd", "duo")
    rates = [train_step(program, step, batch).report.lr for step, batch in enumerate(batches(6))]
    # Two fake phases, then one of the student; warm-up takes two updates of each.
    assert rates == [0.0025, 0.005, 0.0025, 0.005, 0.005, 0.005]


def test_the_sum_over_a_sequence_is_its_mean_times_its_length():
    (batch,) = batches(1)
    mean = train_step(program_of("nelbo"), 0, batch).loss
    total = train_step(program_of("nelbo", reduction="sum"), 0, batch).loss
    assert total == pytest.approx(mean * LENGTH)


def test_preparation_comes_before_the_networks_are_used():
    seen: list[int] = []
    program = replace(program_of("sdtt", "mdlm"), prepare=seen.append)
    for step, batch in enumerate(batches(2)):
        train_step(program, step, batch)
        assert seen == list(range(step + 1))


def test_rounds_lengthen_the_teachers_steps():
    program = program_of("sdtt", "mdlm")
    (batch,) = batches(1)
    (micro, _) = batch.micro_batches
    networks = {name: role.module for name, role in program.roles.items()}

    def nats(step: int) -> torch.Tensor:
        noise = Noise.of_samples(0, "x", samples=micro.samples)
        given = StepInput(
            tokens=micro.tokens, times={"t": torch.full((2,), 0.9)}, noise=noise, step=step
        )
        return program.method.loss(Phase.STUDENT, networks, given).nats

    assert nats(0).equal(nats(19))
    assert not nats(0).equal(nats(20))


def test_the_step_and_the_loop_need_no_deepspeed():
    program = (
        "import sys, idlm_ds.train.step, idlm_ds.train.loop, idlm_ds.train.renewal\n"
        "sys.exit('deepspeed' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
