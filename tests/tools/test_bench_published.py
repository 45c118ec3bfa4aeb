"""The yardstick of the speed measurements computes what the package computes."""

import math
import sys
from pathlib import Path

import pytest
import torch

import idlm_ds
from idlm_ds.processes.base import Noisy, at
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.registry.families import FAMILIES
from tests import mixtures

sys.path.insert(0, str(Path(idlm_ds.__file__).parents[1] / "tools"))
from bench.floor import floor_of
from bench.published import FORMS, Draw, published
from bench.sizes import Sizes, filled, weights
from bench.step_variants import Plain

B, L, V = 3, 8, 23
CPU = torch.device("cpu")
UNIFORM = ["udlm", "duo"]


def sizes(family: str) -> Sizes:
    return Sizes(family=family, hidden=16, blocks=1, heads=2, batch=B, length=L, vocab=V, t_min=0.1)


class Case:
    """A soft target and one draw of its noise, seen by both."""

    def __init__(self, family: str) -> None:
        self.sizes = sizes(family)
        self.process = self.sizes.process()
        self.form = published(self.process, torch.Generator().manual_seed(1))
        scores = torch.randn(B, L, V, generator=torch.Generator().manual_seed(2))
        if FAMILIES[family].is_masked:
            scores[..., V - 1] = -1e6
        self.target = scores.softmax(-1).requires_grad_()
        self.t = self.form.times(B, 0.1)
        self.draw = self.form.noised(self.target, self.t)
        self.networks = [
            filled(self.sizes.make, weights(seed), device=CPU).requires_grad_() for seed in (1, 2)
        ]

    def noisy(self) -> Noisy:
        every = torch.arange(B * L)
        x_0 = SoftTokens(self.draw.x_t, every, self.target.flatten(0, 1))
        at_t = getattr(self.process, "clock", self.process.schedule).at(self.t.double())
        x_in = self.draw.x_in
        if x_in.is_floating_point():
            x_in = mixtures.of_rows(x_in.flatten(0, 1), (B, L))
        masked = (self.draw.x_t == V - 1).flatten().nonzero()[:, 0]
        positions = masked if FAMILIES[self.sizes.family].is_masked else every
        return Noisy(x_0, self.draw.x_t, x_in, at_t, positions)

    def ours(self, network: torch.nn.Module) -> torch.Tensor:
        noisy = self.noisy()
        return network(noisy.x_in, noisy.at_t.sigma, at(noisy.positions))

    def gradient(self, loss: torch.Tensor) -> torch.Tensor:
        (gradient,) = torch.autograd.grad(loss, self.target, retain_graph=True)
        # What is added to all entries of a row changes nothing in a simplex.
        return gradient - gradient[..., :-1].mean(-1, keepdim=True)


def test_every_family_has_a_published_form():
    forms = {type(sizes(family).process()) for family in FAMILIES}
    assert forms == set(FORMS)


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_differ_between_networks_as_ours_do(family):
    case = Case(family)
    one, two = case.networks
    raws = [case.form.raw(network, case.draw) for network in (one, two)]
    theirs = case.form.loss(case.target, raws[0], case.draw)
    theirs = theirs - case.form.loss(case.target, raws[1], case.draw)
    ours = case.process.loss(case.ours(one), case.noisy()).sum()
    ours = ours - case.process.loss(case.ours(two), case.noisy()).sum()
    assert theirs.abs() > 1e-3
    torch.testing.assert_close(theirs, (ours / (B * L)).float(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gap_and_its_gradient_are_ours(family):
    case = Case(family)
    raws = [case.form.raw(network, case.draw) for network in case.networks]
    theirs = case.form.gap(case.target, *raws, case.draw)
    ours = case.process.gap(*map(case.ours, case.networks), case.noisy()).sum() / (B * L)
    torch.testing.assert_close(theirs, ours.float(), rtol=1e-3, atol=1e-5)
    mine, wanted = case.gradient(theirs), case.gradient(ours)
    if FAMILIES[family].is_masked:
        # The mask's entry is no word: networks never answer with it.
        mine, wanted = mine[..., :-1], wanted[..., :-1]
    assert (mine - wanted).norm() < 1e-4 * wanted.norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_keeps_as_many_tokens_as_the_schedule_says(family):
    form = published(sizes(family).process(), torch.Generator().manual_seed(0))
    tokens = torch.randint(V - 1, (2, 4000), generator=torch.Generator().manual_seed(3))
    t = torch.tensor([0.2, 0.7])
    hard = torch.nn.functional.one_hot(tokens, V).float()
    for draw in (form.given(tokens, t), form.noised(hard, t)):
        assert isinstance(draw, Draw)
        floor = 0.0 if FAMILIES[family].is_masked else 1 / V
        kept = draw.clock.alpha + floor * (1 - draw.clock.alpha)
        assert ((draw.x_t == tokens).float().mean(1) - kept).abs().max() < 0.03


@pytest.mark.parametrize("family", FAMILIES)
def test_both_steps_move_both_learners(family):
    plain = Plain(sizes(family))
    for variant in (
        plain.published("foreach"),
        plain.ours("fused", is_logged=True),
        plain.as_shipped("loop"),
    ):
        for learner in plain.learners:
            before = [p.clone() for p in learner.module.parameters()]
            loss = variant.phase()
            assert loss is None or math.isfinite(loss)
            after = list(learner.module.parameters())
            assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert [learner.updates for learner in plain.learners] == [3, 3]


def test_a_floor_counts_what_it_says():
    one = floor_of(sizes("mdlm"))
    # 9 passes; 3.5 rows a position at half of the positions masked; time from 0.1, so a bit more.
    assert one.projection / (2 * B * L * 16 * V) == pytest.approx(5 * 0.5495 + 4 * 0.302, rel=1e-3)
    assert one.trunk == B * L * 9 * (2 * 12 * 16**2 + 4 * 16 * L)
    assert one.total == one.trunk + one.projection
    uniform, soft = (floor_of(sizes(family)) for family in UNIFORM)
    assert uniform.projection == 9 * 2 * B * L * 16 * V
    assert soft.projection == 11 * 2 * B * L * 16 * V
    assert soft.trunk == B * L * (11 * 2 * 12 * 16**2 + 13 * 4 * 16 * L)
