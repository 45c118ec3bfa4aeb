"""Every training method on networks of 13 words, without an engine."""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from idlm_ds.data.loader import Batch, MicroBatch
from idlm_ds.models.dit import DiT, DiTConfig
from idlm_ds.models.init import InitialWeights
from idlm_ds.objectives.alternation import Alternation, Phase
from idlm_ds.objectives.base import Method
from idlm_ds.objectives.idlm import IDLM, dmd
from idlm_ds.objectives.pretrain import Nelbo, NextToken
from idlm_ds.objectives.self_distillation import DCD, SDTT, Rounds
from idlm_ds.processes.base import Process
from idlm_ds.processes.duo import Duo
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.sedd import SEDD
from idlm_ds.processes.udlm import UDLM
from idlm_ds.schedules.gaussian import GaussianClock, GaussianMap
from idlm_ds.schedules.loglinear import LogLinear
from idlm_ds.train.lr import LearningRate
from idlm_ds.train.step import Program, StepSettings

from .stubs import Frozen, Learning, OneRank

VOCAB, LENGTH, GLOBAL_BATCH, T_MIN = 13, 8, 4, 0.1
NETWORK = DiTConfig(vocab_size=VOCAB, hidden=16, blocks=1, heads=2, cond=8, time_conditioning=True)
RATE = LearningRate(peak=5e-3, total=100, warmup_steps=2)
ROUNDS = Rounds(updates=40, count=2, grid=8)


def process_of(family: str) -> Process:
    schedule = LogLinear()
    match family:
        case "mdlm" | "sedd":
            kind = {"mdlm": MDLM, "sedd": SEDD}[family]
            return kind(vocab_size=VOCAB, schedule=schedule, mask_id=VOCAB - 1)
        case "udlm" | "udlm unbiased":
            is_unbiased = family != "udlm"
            return UDLM(vocab_size=VOCAB, schedule=schedule, is_unbiased=is_unbiased)
        case _:
            clock = GaussianClock(GaussianMap(VOCAB), gamma_min=-3.0, gamma_max=0.0)
            _, _, setting = family.partition(" ")
            is_unbiased = setting == "unbiased"
            relaxation = "probabilities" if is_unbiased else setting or "probabilities"
            more = {"relaxation": relaxation, "is_unbiased": is_unbiased}
            return Duo(VOCAB, schedule, clock, tau=0.3, **more)


def method_of(name: str, family: str) -> Method:
    process = process_of(family)
    match name:
        case "idlm":
            return IDLM(process, True, Alternation(1), T_MIN, T_MIN)
        case "dmd":
            return dmd(process, plan=Alternation(2), t_min=T_MIN, input_t_min=0.01)
        case "sdtt":
            return SDTT(process, ROUNDS, T_MIN)
        case "dcd":
            return DCD(process, ROUNDS, T_MIN)
        case "nelbo":
            return Nelbo(process, T_MIN)
        case _:
            return NextToken(T_MIN)


METHODS = [
    *[("idlm", family) for family in ("mdlm", "sedd", "udlm", "duo")],
    *[("dmd", "duo"), ("sdtt", "mdlm"), ("sdtt", "sedd"), ("dcd", "udlm"), ("dcd", "duo")],
    *[("nelbo", family) for family in ("mdlm", "sedd", "udlm", "duo")],
    ("ar", "mdlm"),
]
"""Every method with every family it is defined for."""


def network(seed: int, *, latent: int = 0) -> DiT:
    """Random weights, gates and output included."""

    def draw(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        values = 0.3 * torch.randn(shape, generator=generator)
        return values + 1.0 if "norm" in name else values

    source, made = InitialWeights(draw, seed=seed), DiT(replace(NETWORK, latent=latent))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            shape = tuple(parameter.shape)
            parameter.copy_(source.read(name, shape, 0, math.prod(shape)).view(shape))
    return made


def program_of(name: str, family: str = "mdlm", *, reduction: str = "mean") -> Program:
    method = method_of(name, family)
    learners = {method.plan.phase(step) for step in range(method.plan.cycle)}
    roles: dict[str, Frozen] = {
        phase.learner: Learning(network(i)) for i, phase in enumerate(Phase) if phase in learners
    }
    if Phase.PRETRAIN not in learners:
        roles = {"teacher": Frozen(network(7)), **roles}
    settings = StepSettings(
        seed=3,
        global_batch=GLOBAL_BATCH,
        length=LENGTH,
        reduction=reduction,
        world=OneRank(),
    )
    return Program(
        method=method, roles=roles, rates=dict.fromkeys(learners, RATE), settings=settings
    )


def batches(count: int, *, micro: int = 2) -> Iterator[Batch]:
    """Batches of random words, the mask never among them."""
    generator = torch.Generator().manual_seed(0)
    for step in range(count):
        tokens = torch.randint(0, VOCAB - 1, (GLOBAL_BATCH, LENGTH), generator=generator)
        yield Batch(
            [
                MicroBatch(
                    tokens=tokens[first : first + micro],
                    rows=slice(first, first + micro),
                    samples=range(step * GLOBAL_BATCH + first, step * GLOBAL_BATCH + first + micro),
                )
                for first in range(0, GLOBAL_BATCH, micro)
            ],
            wait_s=0.0,
        )
