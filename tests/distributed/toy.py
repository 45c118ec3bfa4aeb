"""A distillation small enough for a test: three DiTs of 17 words, four sequences of six tokens."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from idlm_ds.data.loader import Loader
from idlm_ds.data.windows import Windows
from idlm_ds.engine.config import AdamW, EngineJson, Numerics
from idlm_ds.engine.dist import World
from idlm_ds.engine.role import FrozenRole, Role, TrainedRole, start_frozen, start_trained
from idlm_ds.engine.sharing import Groups
from idlm_ds.engine.zero import gathered
from idlm_ds.models.dit import DiT, DiTConfig
from idlm_ds.models.init import InitialWeights
from idlm_ds.objectives.alternation import Alternation, Phase
from idlm_ds.objectives.idlm import IDLM
from idlm_ds.processes.base import Process
from idlm_ds.processes.duo import Duo
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.schedules.gaussian import GaussianClock, GaussianMap
from idlm_ds.schedules.loglinear import LogLinear
from idlm_ds.train.lr import LearningRate
from idlm_ds.train.step import Program, StepSettings

VOCAB, LENGTH, GLOBAL_BATCH, SEED, T_MIN, INPUT_T_MIN = 17, 6, 4, 5, 0.1, 0.01
NETWORK = DiTConfig(
    vocab_size=VOCAB, hidden=16, blocks=2, heads=2, cond=8, mlp_ratio=2, time_conditioning=True
)
PLAN = Alternation(fake_steps=2)
PEAK = {"fake": 6e-3, "student": 4e-3}
WARMUP = 3
BETAS, EPS, WEIGHT_DECAY = (0.9, 0.95), 1e-2, 0.1
"""Adam's eps is large so that round-off in gradients that are truly zero is not blown up."""

EMA_DECAY = 0.7

ADAPTED = ("blocks.0.adaLN_modulation.bias", "output_layer.linear.bias")
"""About one parameter in a hundred: one tensor that stage 3 cuts and one that it keeps whole."""


def is_adapted(name: str) -> bool:
    """Stands for an adapter's choice of what learns."""
    return name in ADAPTED


def engine_json(stage: int, **zero: Any) -> EngineJson:
    """Buckets and thresholds so small that even this network crosses them."""
    fields: dict[str, Any] = {"stage": stage, "reduce_bucket_size": 700}
    if stage < 3:
        fields |= {"allgather_bucket_size": 1000}
    if stage >= 2:
        fields |= {"contiguous_gradients": True, "overlap_comm": True}
    if stage == 3:
        fields |= {
            "sub_group_size": 1500,
            "stage3_prefetch_bucket_size": 600,
            "stage3_max_live_parameters": 3000,
            "stage3_max_reuse_distance": 0,
            "stage3_param_persistence_threshold": 20,
        }
    return EngineJson(f"zero{stage}.json", {"zero_optimization": fields | zero})


def with_latent(network: DiTConfig, latent: int) -> DiTConfig:
    """The student's network."""
    return replace(network, latent=latent, latent_rate=0.5)


def make_objective(family: str, latent: int = 0) -> IDLM:
    """``duo`` lets the student's gradient pass through teacher and fake, ``dmd`` does not."""
    return IDLM(
        make_process(family),
        family != "dmd",
        PLAN,
        T_MIN,
        INPUT_T_MIN,
        noisings=noisings_of(family),
        latent=latent,
    )


def noisings_of(family: str) -> int:
    """``duo 2`` is duo with two noisings of a sample."""
    return int(family.partition(" ")[2] or 1)


def make_process(family: str) -> Process:
    """Relaxed inputs are warm here: cold ones have gradients that one bit of round-off changes."""
    if family.startswith("mdlm"):
        return MDLM(vocab_size=VOCAB, schedule=LogLinear(), mask_id=VOCAB - 1)
    clock = GaussianClock(GaussianMap(VOCAB), gamma_min=-3.0, gamma_max=0.0)
    return Duo(vocab_size=VOCAB, schedule=LogLinear(), clock=clock, tau=0.3)


def _draw(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    values = 0.3 * torch.randn(shape, generator=generator)
    return values + 1.0 if "norm" in name else values


def plain_network(
    weights: Callable[[str, tuple[int, ...]], Tensor], config: DiTConfig = NETWORK
) -> DiT:
    """A network without an engine, filled by name."""
    network = DiT(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(weights(name, tuple(parameter.shape)))
    return network.requires_grad_(False)


def weights_of(role: str) -> InitialWeights:
    """Random weights, gates and output included, other ones for every role."""
    return InitialWeights(_draw, seed={"teacher": 1, "fake": 2, "student": 3}[role])


def optimizer_of(role: str) -> AdamW:
    return AdamW(lr=PEAK[role], betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY)


def rate_of(role: str) -> LearningRate:
    return LearningRate(peak=PEAK[role], total=100, warmup_steps=WARMUP)


@contextmanager
def on_hosts(world: World, ranks: int) -> Iterator[None]:
    """Let ranks believe that each so many of them are on one host."""
    with patch("socket.gethostname", return_value=f"host-{world.rank // ranks}"):
        yield


def make_windows() -> Windows:
    stream = np.random.default_rng(0).integers(0, VOCAB - 1, 40 * LENGTH).astype(np.int32)
    return Windows(stream, LENGTH, SEED)


def make_loader(world: World, accumulation: int = 1) -> Loader:
    return Loader(
        make_windows(),
        global_batch=GLOBAL_BATCH,
        micro_batch=GLOBAL_BATCH // (world.size * accumulation),
        rank=world.rank,
        world=world.size,
        device=world.device,
        prefetch=2,
    )


def numerics_of(
    world: World, *, accumulation: int = 1, clip: float = 0.0, precision: str = "fp32"
) -> Numerics:
    """The toy's batch, cut into passes."""
    return Numerics(
        micro_batch=GLOBAL_BATCH // (world.size * accumulation),
        accumulation=accumulation,
        world=world.size,
        precision=precision,
        clip=clip,
    )


def settings_of(world: World) -> StepSettings:
    return StepSettings(
        seed=SEED, global_batch=GLOBAL_BATCH, length=LENGTH, reduction="mean", world=world
    )


def start_teacher(
    json: EngineJson,
    numerics: Numerics,
    network: DiTConfig = NETWORK,
    groups: Groups | None = None,
) -> FrozenRole:
    source = weights_of("teacher")
    return start_frozen("teacher", lambda: DiT(network), source, json, numerics, groups)


def start_learner(
    role: str,
    json: EngineJson,
    numerics: Numerics,
    network: DiTConfig = NETWORK,
    *,
    weights: InitialWeights | None = None,
    trainable: Callable[[str], bool] = lambda name: True,
    has_mean: bool = True,
) -> TrainedRole:
    return start_trained(
        role,
        lambda: DiT(network),
        weights or weights_of(role),
        json,
        numerics,
        optimizer_of(role),
        ema_decay=EMA_DECAY if has_mean else None,
        trainable=trainable,
    )


def start_program(
    world: World,
    json: EngineJson,
    *,
    family: str = "mdlm",
    accumulation: int = 1,
    clip: float = 0.0,
    precision: str = "fp32",
    network: DiTConfig = NETWORK,
    latent: int = 0,
    trainable: Callable[[str], bool] = lambda name: True,
    groups: Groups | None = None,
    has_fake_mean: bool = True,
) -> Program:
    """Three engines and the real program around them; the student may have a latent."""
    numerics = numerics_of(world, accumulation=accumulation, clip=clip, precision=precision)
    teacher = start_teacher(json, numerics, network, groups)
    fake = start_learner(
        "fake", json, numerics, network, trainable=trainable, has_mean=has_fake_mean
    )
    student = start_learner(
        "student", json, numerics, with_latent(network, latent), trainable=trainable
    )
    return Program(
        method=make_objective(family, latent),
        roles={"teacher": teacher, "fake": fake, "student": student},
        rates={Phase.FAKE: rate_of("fake"), Phase.STUDENT: rate_of("student")},
        settings=settings_of(world),
    )


def state_of(world: World, roles: Mapping[str, TrainedRole]) -> dict[str, Tensor]:
    """Collective: whole fp32 weights, moments and running means of trained roles, by name."""
    parts: dict[str, Tensor] = {}
    for role_name, role in roles.items():
        kinds = {"weight": role.shards.weights, **role.shards.moments()}
        if role.has_mean:
            kinds["ema"] = role.ema.buffers
        for kind, buffers in kinds.items():
            for fragment in role.shards.fragments:
                key = f"{role_name}/{kind}/{fragment.name}"
                parts.setdefault(key, torch.full(fragment.shape, torch.nan))
                part = fragment.view(buffers).detach()
                stop = fragment.start + fragment.numel
                parts[key].view(-1)[fragment.start : stop] = part
    whole: dict[str, Tensor] = {}
    for share in world.gather({k: v.numpy() for k, v in parts.items()}):
        for key, value in share.items():
            theirs = torch.from_numpy(value)
            mine = whole.setdefault(key, torch.full_like(theirs, torch.nan))
            whole[key] = torch.where(theirs.isnan(), mine, theirs)
    return whole


def assert_same(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: str) -> None:
    """Bit for bit."""
    assert got.keys() == wanted.keys(), where
    for name, value in wanted.items():
        assert torch.equal(got[name], value), f"{where}: {name} differs"


@torch.no_grad()
def gather_weights(role: Role, *, is_first: bool) -> dict[str, Tensor]:
    """Collect a network's weights on the first rank, one tensor at a time.

    Collective: every rank must call. Of a network that learns, the running mean is taken.

    Returns:
        CPU tensors by parameter name on the first rank, nothing on the others.
    """
    if not isinstance(role, TrainedRole):
        return _gather(role, is_first=is_first)
    with role.ema.in_place():
        return _gather(role, is_first=is_first)


def _gather(role: Role, *, is_first: bool) -> dict[str, Tensor]:
    weights = {}
    for name, parameter in role.module.named_parameters():
        with gathered(parameter):
            if is_first:
                weights[name] = parameter.detach().cpu().clone()
    return weights
