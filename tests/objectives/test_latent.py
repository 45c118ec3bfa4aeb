"""A student with a latent: what it is shown, and what it learns from that."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from idlm_ds.noise import Noise, stratified_times
from idlm_ds.objectives.alternation import Phase
from idlm_ds.objectives.base import StepInput
from idlm_ds.objectives.idlm import IDLM, INPUT, SAMPLE
from idlm_ds.processes.base import Noisy
from idlm_ds.tensor_types import LatentInput
from tests import plain_idlm
from tests.train.toy import GLOBAL_BATCH, LENGTH, VOCAB, method_of, network, process_of

Z = 3
FAMILIES = ["mdlm", "sedd", "udlm", "duo"]
PHASES = [Phase.FAKE, Phase.STUDENT]


def objective_of(family: str, name: str = "idlm", **fields: Any) -> IDLM:
    method = method_of(name, family)
    assert isinstance(method, IDLM)
    return replace(method, **{"latent": Z, **fields})


def noise_of(samples: range) -> Noise:
    return Noise.of_samples(0, "noise", samples=samples)


def step_input(samples: range = range(GLOBAL_BATCH)) -> StepInput:
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, VOCAB - 1, (GLOBAL_BATCH, LENGTH), generator=generator)
    t = torch.linspace(0.3, 1.0, GLOBAL_BATCH, dtype=torch.float64)
    rows = list(samples)
    times = {INPUT: t.flip(0)[rows], SAMPLE: t[rows]}
    return StepInput(tokens[rows], times, noise_of(samples), step=0, is_logged=True)


def networks(learner: str, *, fake: int = 1) -> dict[str, nn.Module]:
    made = {"teacher": network(0), "fake": network(fake), "student": network(2, latent=Z)}
    for name, module in made.items():
        module.double().eval().requires_grad_(name == learner)
    return made


def shown_of(objective: IDLM, samples: range = range(GLOBAL_BATCH)) -> Noisy:
    batch = step_input(samples)
    return objective.student_input(batch.tokens, batch.times[INPUT], noise=batch.noise)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_latent_goes_beside_what_the_student_is_shown_without_one(family):
    plain = shown_of(objective_of(family, latent=0))
    given = shown_of(objective_of(family))
    assert isinstance(given.x_in, LatentInput)
    assert given.x_t.equal(plain.x_t)
    shown, wanted = (x if isinstance(x, Tensor) else x.scores for x in (given.x_in.x, plain.x_in))
    assert shown.equal(wanted)
    gate = objective_of(family).process.ignorance(given.x_t, given.at_t.sigma)
    assert (given.x_in.z != 0).equal((gate > 0)[..., None].expand(-1, -1, Z))
    assert 0 < (gate > 0).double().mean() < 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_students_latent_does_not_depend_on_the_batch(family):
    objective = objective_of(family)
    whole = shown_of(objective).x_in
    for samples in (range(1), range(1, 3), range(1, GLOBAL_BATCH, 2)):
        assert shown_of(objective, samples).x_in.z.equal(whole.z[list(samples)])


@pytest.mark.parametrize("family", FAMILIES)
def test_both_phases_show_the_student_one_latent_and_the_others_none(family):
    shown: dict[str, list[Any]] = {"teacher": [], "fake": [], "student": []}
    for phase in PHASES:
        made = networks(phase.learner)
        for role, module in made.items():
            module.register_forward_pre_hook(lambda _, args, role=role: shown[role].append(args[0]))
        objective_of(family).loss(phase, made, step_input())
    first, second = shown["student"]
    assert first.z.equal(second.z)
    assert not [x for role in ("teacher", "fake") for x in shown[role] if hasattr(x, "z")]


def gradients(loss: Tensor, student: nn.Module) -> dict[str, Tensor]:
    parameters = dict(student.named_parameters())
    values = torch.autograd.grad(loss, parameters.values())
    return dict(zip(parameters, values, strict=True))


@pytest.mark.parametrize(
    ("name", "family"), [*(("idlm", family) for family in FAMILIES), ("dmd", "duo")]
)
def test_the_gradient_of_a_latent_is_that_of_one_graph_over_whole_rows(name, family):
    objective, made = objective_of(family, name), networks("student")
    batch = step_input()
    got = gradients(objective.loss(Phase.STUDENT, made, batch).nats.sum(), made["student"])
    same = noise_of(range(GLOBAL_BATCH))
    given = objective.student_input(batch.tokens, batch.times[INPUT], noise=same)
    x_0 = objective.process.relax(plain_idlm.generate(made["student"], given), given)
    judges = made["teacher"], made["fake"]
    gap = plain_idlm.gap(objective, *judges, x_0, batch.times[SAMPLE], noise=same)
    wanted = gradients(gap.sum(), made["student"])
    assert wanted["latent_map.weight"].abs().max() > 1e-4
    for key, value in wanted.items():
        assert (got[key] - value).norm() < 1e-9 * value.norm().clamp(min=1e-3), key


@pytest.mark.parametrize("family", FAMILIES)
def test_a_latent_learns_nothing_while_the_fake_is_the_teacher(family):
    made = networks("student", fake=0)
    loss = objective_of(family).loss(Phase.STUDENT, made, step_input()).nats.sum()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert gradients(loss, made["student"])["latent_map.weight"].abs().max() < 1e-12


def test_a_share_of_the_inputs_is_at_time_one_and_the_rest_stays_stratified():
    count, first, share = 40, 0.5, 0.25
    objective = IDLM(process_of("mdlm"), input_t_min=first, full_noise_fraction=share)
    t = stratified_times(0, INPUT, 3, count=count, t_min=first)
    moved = objective.input_times(t)
    assert (moved == 1).sum() == share * count
    assert (moved == 1).equal(t >= first + (1 - first) * (1 - share))
    # One in each of 30 strata of [1/2, 1).
    rest = ((moved[moved < 1] - first) / (1 - first) * 30).sort().values
    assert rest.floor().tolist() == list(range(30))
    assert (moved >= t).all()


def test_no_share_at_time_one_leaves_the_times_alone():
    t = stratified_times(0, INPUT, 3, count=40, t_min=0.1)
    assert IDLM(process_of("mdlm"), input_t_min=0.1).input_times(t) is t
