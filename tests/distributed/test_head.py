"""Operators on hidden states and projection weight, inside one forward pass or two nested ones."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from idlm_ds.engine.dist import World
from idlm_ds.engine.trio import one_learns
from idlm_ds.processes.base import Head, at
from tests import mixtures

from . import toy
from .harness import run_ranks

pytestmark = pytest.mark.dist

CHUNK = 5


def _project(hidden: Tensor, weight: Tensor, bias: Tensor, /) -> Tensor:
    """The plainest operator; under ZeRO-3 it fails unless the weight is whole."""
    assert weight.shape == (toy.VOCAB, toy.NETWORK.hidden)
    return F.linear(hidden, weight, bias)


def _gap(teacher: Tensor, fake: Tensor) -> Tensor:
    p = teacher.log_softmax(-1)
    return (p.exp() * (p - fake.log_softmax(-1))).sum(-1)


def _inputs(world: World) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(world.rank)
    tokens = torch.randint(0, toy.VOCAB, (2, toy.LENGTH), generator=generator)
    return tokens, torch.tensor([0.5, 1.5]), torch.arange(tokens.numel())


def _losses_and_gradients(world: World, stage: int) -> dict[str, Any]:
    """The fake learns a divergence from the teacher, read in three ways."""
    roles = toy.start_program(world, toy.engine_json(stage)).roles
    x, sigma, everywhere = _inputs(world)
    answers = {}

    def apart(teacher: Any, fake: Any) -> Tensor:
        with torch.no_grad():
            target = teacher(x, sigma, at(everywhere))
        return _gap(target, fake(x, sigma, at(everywhere)))

    def fused(teacher: Any, fake: Any) -> Tensor:
        with torch.no_grad():
            target = teacher(x, sigma, lambda head: head.fused(_project, everywhere))
        return _gap(target, fake(x, sigma, lambda head: head.fused(_project, everywhere)))

    def nested(teacher: Any, fake: Any) -> Tensor:
        """Both heads at once, in chunks, so that no more than CHUNK rows of scores exist.

        The outer network runs with gradients enabled, although nothing in it asks for one: at
        stage 3 it hooks its output, which under ``no_grad`` would lose the inner one's graph.
        """

        def both(of_teacher: Head, of_fake: Head) -> Tensor:
            return torch.cat(
                [
                    _gap(of_teacher.scores(part).detach(), of_fake.fused(_project, part))
                    for part in everywhere.split(CHUNK)
                ]
            )

        return teacher(x, sigma, lambda ht: fake(x, sigma, lambda hf: both(ht, hf)))

    for name, read in {"apart": apart, "fused": fused, "nested": nested}.items():
        with one_learns(roles, "fake") as networks:
            nats = read(networks["teacher"], networks["fake"])
            roles["fake"].backward(nats.mean())
        answers[name] = {
            "nats": nats.detach().clone(),
            "norm": roles["fake"].step(lr=0.0).grad_norm,
        }
    return answers


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_nested_heads_in_chunks_give_the_loss_and_gradient_of_two_networks_apart(
    stage: int, size: int
):
    for answer in run_ranks(_losses_and_gradients, size, stage):
        assert answer["apart"]["norm"] > 1e-3
        for name in ("fused", "nested"):
            torch.testing.assert_close(answer[name]["nats"], answer["apart"]["nats"])
            assert answer[name]["norm"] == pytest.approx(answer["apart"]["norm"], rel=1e-5), name


def _transmitted(world: World, stage: int) -> dict[str, Tensor]:
    """The student's side: a gap whose gradient passes through both idle networks to their input."""
    roles = toy.start_program(world, toy.engine_json(stage), family="duo").roles
    generator = torch.Generator().manual_seed(world.rank)
    scores = torch.randn(2 * toy.LENGTH, toy.VOCAB, generator=generator)
    sigma, everywhere = torch.tensor([0.5, 1.5]), torch.arange(2 * toy.LENGTH)
    answers = {}
    for name in ("apart", "nested"):
        leaf = scores.clone().requires_grad_()
        x = mixtures.of_rows(leaf, (2, toy.LENGTH))
        with one_learns(roles, "student") as networks:
            teacher, fake = networks["teacher"], networks["fake"]
            if name == "apart":
                nats = _gap(teacher(x, sigma, at(everywhere)), fake(x, sigma, at(everywhere)))
            else:
                nats = teacher(
                    x,
                    sigma,
                    lambda ht, x=x, fake=fake: fake(
                        x,
                        sigma,
                        lambda hf: torch.cat(
                            [
                                _gap(ht.scores(part), hf.scores(part))
                                for part in everywhere.split(CHUNK)
                            ]
                        ),
                    ),
                )
            (gradient,) = torch.autograd.grad(nats.sum(), leaf)
        answers[name] = torch.cat([nats.detach(), gradient.flatten()])
    return answers


@pytest.mark.parametrize(("stage", "size"), [(2, 2), (3, 1), (3, 2)])
def test_a_gradient_passes_through_two_nested_idle_networks(stage: int, size: int):
    for answer in run_ranks(_transmitted, size, stage):
        assert answer["apart"].abs().max() > 1e-3
        torch.testing.assert_close(answer["nested"], answer["apart"], rtol=1e-5, atol=1e-6)
