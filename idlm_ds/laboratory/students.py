"""The few-step students that are compared, and how each is trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn

from idlm_ds.laboratory.languages import Language
from idlm_ds.laboratory.teacher import ExactTeacher
from idlm_ds.laboratory.training import Training, new_network, train
from idlm_ds.models.dit import DiTConfig
from idlm_ds.models.embed import latent_std
from idlm_ds.noise import derive_seed
from idlm_ds.objectives.base import Method
from idlm_ds.objectives.idlm import IDLM
from idlm_ds.objectives.pretrain import Nelbo
from idlm_ds.objectives.self_distillation import DCD, SDTT, Rounds
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Process
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.udlm import UDLM
from idlm_ds.processes.uniform import Uniform
from idlm_ds.schedules.loglinear import LogLinear

LATENT = 32
"""Entries of the latent of a position."""

LATENT_RATE = 2.0
LATENT_SCALE = 1.0
"""Root mean square of what the latent adds at first, as a multiple of the words' embedding's."""

SLIP = 0.01
"""Of the teacher in training: a student may be in states that no sentence passes through."""

FIT = Training(updates=300, batch=128, lr=2e-3, betas=(0.9, 0.99))
"""How the network is fitted to data that students and fakes start from."""

FIT_T_MIN, SAMPLE_T_MIN, INPUT_T_MIN = 0.05, 0.1, 0.2
"""Smallest times of the fit, of student samples that are noised, and of the student's input."""

FULL_NOISE = 0.3
"""Share of a student's inputs that are all mask."""

ROUNDS, GRID = 5, 64
"""Of self-distillation: steps double from 1/64 to 1/4."""


def masked_process(language: Language) -> Absorbing:
    """Make the masked family of a language."""
    return MDLM(language.vocab_size, LogLinear(), language.mask_id)


def uniform_process(language: Language) -> Uniform:
    """Make the uniform family of a language."""
    return UDLM(language.num_words, LogLinear())


def sizes(process: Process, latent: int = 0) -> DiTConfig:
    """Return the sizes of every network of a family; uniform ones are shown the time."""
    return DiTConfig(
        vocab_size=process.vocab_size,
        hidden=64,
        blocks=2,
        heads=4,
        cond=16,
        time_conditioning=isinstance(process, Uniform),
        latent=latent,
        latent_rate=LATENT_RATE,
    )


def fitted(language: Language, process: Process, *, seed: int) -> dict[str, Tensor]:
    """Fit a network to sentences by the family's own loss: where students and fakes start."""
    network = new_network(sizes(process), language.length, seed=seed)
    method = Nelbo(process, t_min=FIT_T_MIN)
    return train(method, {"model": network}, language, replace(FIT, seed=seed)).state_dict()


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class StudentKind:
    """One line of the comparison."""

    name: str
    method: Callable[[Process, int], Method]
    """Made of a family and the number of updates."""

    is_masked: bool = True
    latent: int = 0

    def process(self, language: Language) -> Process:
        """Make the family."""
        return masked_process(language) if self.is_masked else uniform_process(language)

    def trained(
        self, language: Language, start: Mapping[str, Tensor], training: Training
    ) -> nn.Module:
        """Distil the exact teacher into a student that starts as a fitted network."""
        process = self.process(language)
        teacher = ExactTeacher(language, slip=SLIP, is_masked=self.is_masked, dtype=torch.float32)
        networks: dict[str, nn.Module] = {
            "teacher": teacher,
            "fake": new_network(sizes(process), language.length, seed=training.seed, start=start),
            "student": self.new_student(language, start, seed=training.seed),
        }
        return train(self.method(process, training.updates), networks, language, training)

    def new_student(
        self, language: Language, start: Mapping[str, Tensor], *, seed: int
    ) -> nn.Module:
        """Build the student; what a latent adds to its embedding is small at first.

        A latent that outweighs words and places is read as one for the whole sentence, and then
        the student makes all words alike for a long time.
        """
        network = new_network(
            sizes(self.process(language), self.latent), language.length, seed=seed, start=start
        )
        if network.latent_map is not None:
            level = network.get_parameter("vocab_embed.embedding").square().mean().sqrt().item()
            std = latent_std(level, latent=self.latent, scale=LATENT_SCALE, rate=LATENT_RATE)
            generator = torch.Generator().manual_seed(derive_seed(seed, "latent"))
            with torch.no_grad():
                network.latent_map.weight.normal_(std=std, generator=generator)
        return network


def _idlm(process: Process, updates: int, latent: int = 0) -> IDLM:
    del updates
    return IDLM(
        process,
        t_min=SAMPLE_T_MIN,
        input_t_min=INPUT_T_MIN,
        full_noise_fraction=FULL_NOISE,
        latent=latent,
    )


def _idlm_with_latent(process: Process, updates: int) -> IDLM:
    return _idlm(process, updates, LATENT)


def _sdtt(process: Process, updates: int) -> SDTT:
    assert isinstance(process, Absorbing)
    return SDTT(process, Rounds(updates=updates, count=ROUNDS, grid=GRID))


def _dcd(process: Process, updates: int) -> DCD:
    assert isinstance(process, Uniform)
    return DCD(process, Rounds(updates=updates, count=ROUNDS, grid=GRID))


STUDENTS = (
    StudentKind(name="SDTT", method=_sdtt),
    StudentKind(name="IDLM (= DMD)", method=_idlm),
    StudentKind(name="IDLM + z", method=_idlm_with_latent, latent=LATENT),
    StudentKind(name="DCD", method=_dcd, is_masked=False),
)
"""In masked families the updates of DMD are those of IDLM to the last bit: one line for both."""
