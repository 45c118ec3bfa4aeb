"""The ways to run an iteration that are compared, each as a function of the phase."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Generator, nn

from bench.plain_roles import DECAY, Kind, OneRank, plain_roles
from bench.published import published
from bench.published_step import PublishedStep
from bench.sizes import Sizes, filled, weights
from idlm_ds.engine.trio import Borrowed
from idlm_ds.objectives.alternation import Phase
from idlm_ds.objectives.idlm import IDLM
from idlm_ds.train.lr import LearningRate
from idlm_ds.train.step import Program, StepSettings, train_step

LR = 1e-6
KINDS = get_args(Kind)
PUBLISHED, OURS = "published", "ours"
ENGINES = tuple(f"zero{stage}" for stage in (1, 2, 3))
CONFIGS = Path(__file__).parents[2] / "ds_configs"


@dataclass
class Variant:
    """One way to run an iteration."""

    label: str
    run: Callable[[int], float | None]
    """Runs the phase of this index and returns its loss if known; even ones are the fake's."""

    steps: int = field(default=0, init=False)

    def phase(self) -> float | None:
        """Run the next phase."""
        self.steps += 1
        return self.run(self.steps - 1)


def plain_program(sizes: Sizes, roles: Mapping[str, Borrowed], world: Any) -> Program:
    """Make the package's own program for some roles."""
    method = IDLM(sizes.process(), t_min=sizes.t_min, input_t_min=sizes.t_min)
    rate = LearningRate(peak=LR, total=1_000_000)
    settings = StepSettings(
        seed=1, global_batch=sizes.batch, length=sizes.length, reduction="mean", world=world
    )
    return Program(method, roles, {Phase.FAKE: rate, Phase.STUDENT: rate}, settings)


@dataclass
class Plain:
    """Variants that share one set of plain networks, optimizer states and running means."""

    sizes: Sizes
    device: torch.device = torch.device("cpu")
    network: Callable[[int], nn.Module] | None = None
    """Makes the network of a seed, where it is not a float32 one with ``weights``."""

    def __post_init__(self) -> None:
        self.roles = plain_roles(
            self.network
            or (lambda seed: filled(self.sizes.make, weights(seed), device=self.device))
        )
        self.learners = [self.roles[name] for name in ("fake", "student")]

    def published(self, kind: Kind) -> Variant:
        """Take the published step."""
        generator = Generator(self.device).manual_seed(0)
        family = published(self.sizes.process(), generator)
        step = PublishedStep(self.roles, family, self.sizes.t_min, LR)

        def run(index: int) -> float | None:
            self._optimize_by(kind)
            (micro,) = self.sizes.batch_of(index, self.device).micro_batches
            return (step.fake_phase, step.student_phase)[index % 2](micro.tokens)

        return Variant(f"{PUBLISHED} ({kind} AdamW)", run)

    def as_shipped(self, kind: Kind) -> Variant:
        """Take the published step as its program runs it: with PyTorch's search for NaN on."""
        inner = self.published(kind)

        def run(index: int) -> float | None:
            with torch.autograd.set_detect_anomaly(True):
                return inner.run(index)

        return Variant("published, as shipped (anomaly detection on)", run)

    def ours(self, kind: Kind, *, is_logged: bool = False) -> Variant:
        """Take the package's step, with plain networks in place of engines."""
        program = plain_program(self.sizes, self.roles, OneRank(self.device))

        def run(index: int) -> float | None:
            self._optimize_by(kind)
            batch = self.sizes.batch_of(index, self.device)
            return train_step(program, index, batch, is_logged=is_logged).loss

        return Variant(f"{OURS}{', logged' if is_logged else ''} ({kind} AdamW)", run)

    def _optimize_by(self, kind: Kind) -> None:
        for learner in self.learners:
            learner.kind = kind


def through_engines(sizes: Sizes, name: str, world: Any, *, precision: str = "fp32") -> Variant:
    """Take the package's step, with DeepSpeed engines.

    Args:
        sizes: Sizes.
        name: The engine file in ``ds_configs``.
        world: The process group, of one process.
        precision: As in a recipe.
    """
    from idlm_ds.engine.config import AdamW, Numerics, read_engine_json
    from idlm_ds.engine.role import start_frozen, start_trained

    # As written: a launcher would run stage 3 as stage 1 on one rank.
    json, make = read_engine_json(CONFIGS / f"{name}.json"), sizes.make
    numerics = Numerics(
        micro_batch=sizes.batch, accumulation=1, world=1, precision=precision, clip=0.0
    )
    adam = AdamW(lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    roles: dict[str, Borrowed] = {
        "teacher": start_frozen("teacher", make, weights(1), json, numerics)
    }
    for seed, role in ((2, "fake"), (3, "student")):
        roles[role] = start_trained(
            role, make, weights(seed), json, numerics, adam, ema_decay=DECAY
        )
    program = plain_program(sizes, roles, world)

    def run(index: int) -> float | None:
        return train_step(program, index, sizes.batch_of(index, world.device)).loss

    return Variant(f"{OURS}, {name} ({_kind_of(json.trained(numerics, adam))} AdamW)", run)


def _kind_of(fields: Mapping[str, Any]) -> str:
    """Read from an engine's configuration how it runs AdamW."""
    parameters = fields["optimizer"]["params"]
    kinds: Iterable[str] = (kind for kind in KINDS if parameters.get(kind))
    return next(iter(kinds), "default")
