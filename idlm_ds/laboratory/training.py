"""Training of small networks on a language: a plain loop in one process, without engines."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Generator, nn

from idlm_ds.laboratory.languages import Language
from idlm_ds.laboratory.streams import BatchNoise
from idlm_ds.models.dit import DiT, DiTConfig, initial_value
from idlm_ds.models.embed import SoftEmbedding
from idlm_ds.models.init import InitialWeights
from idlm_ds.noise import derive_seed, stratified_times
from idlm_ds.objectives.alternation import Phase
from idlm_ds.objectives.base import Method, StepInput, batch_loss
from idlm_ds.objectives.self_distillation import SelfDistillation
from idlm_ds.train.lr import LearningRate

CLIP = 1.0
"""Largest norm of a gradient."""

PLACE_RATE = 4.0
"""Factor of the embedding of places: with it they outweigh words at first."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """Settings of a run."""

    updates: int
    """Of the network that is wanted, the student or the one that is fitted to data."""

    batch: int = 256
    lr: float = 1e-3
    fake_lr: float = 3e-3
    warmup_steps: int = 20
    decay_fraction: float = 0.5
    betas: tuple[float, float] = (0.5, 0.95)
    ema: float = 0.99
    """Largest decay of the running mean."""

    seed: int = 0

    def rate(self, phase: Phase, fake_steps: int) -> LearningRate:
        """Make the schedule of the learning rate in a phase."""
        peak = self.fake_lr if phase is Phase.FAKE else self.lr
        total = self.updates * (fake_steps if phase is Phase.FAKE else 1)
        return LearningRate(peak, total, self.warmup_steps, self.decay_fraction)


@final
class PlacedEmbedding(SoftEmbedding):
    """Token embedding plus a learnt vector for each place in the sentence (L, D).

    Rotary angles tell distances only. Where a word stands matters in short sentences, and a small
    network learns it much sooner when it is told.
    """

    def __init__(self, vocab_size: int, hidden: int, length: int) -> None:
        super().__init__(vocab_size, hidden)
        self.places = nn.Parameter(torch.empty(length, hidden))

    def forward(self, ids: torch.Tensor, *mixture: torch.Tensor) -> torch.Tensor:
        """Look up tokens (B, L); mixtures have no place here."""
        assert not mixture
        return super().forward(ids) + PLACE_RATE * self.places


def new_network(
    config: DiTConfig, length: int, *, seed: int, start: Mapping[str, torch.Tensor] = {}
) -> DiT:
    """Build a network that knows places; what ``start`` lacks gets its initial value."""
    network = DiT(config)
    network.vocab_embed = PlacedEmbedding(config.vocab_size, config.hidden, length)
    source = InitialWeights(initial_value, seed=seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            drawn = source.read(name, tuple(value.shape), 0, value.numel()).view(value.shape)
            value.copy_(start.get(name, drawn))
    return network


def train(
    method: Method, networks: dict[str, nn.Module], language: Language, training: Training
) -> nn.Module:
    """Train a method on sentences of a language.

    Args:
        method: What is trained; one that trains in rounds gets a copy of the student as teacher
            at the start of every round but the first.
        networks: By role; those that learn are changed.
        language: What the data are drawn from.
        training: Settings.

    Returns:
        The running mean of the network that the run is about.
    """
    cycle, main = method.plan.cycle, method.plan.main
    learners = {phase: networks[phase.learner] for phase in method.loss_names}
    adams = {p: _adam(network, training) for p, network in learners.items()}
    rates = {phase: training.rate(phase, cycle - 1) for phase in learners}
    mean = copy.deepcopy(learners[main]).requires_grad_(False)
    data = Generator().manual_seed(derive_seed(training.seed, "data"))
    for network in networks.values():
        network.requires_grad_(False)
    for step in range(training.updates * cycle):
        phase = method.plan.phase(step)
        count = method.plan.updates(phase, step)
        networks |= _renewed(method, networks, step)
        learner = learners[phase].requires_grad_(True)
        batch = _batch(method, language.draw(training.batch, generator=data), training, step)
        nats = method.loss(phase, networks, batch).nats
        loss = batch_loss(
            nats,
            reduction="mean",
            global_batch=training.batch,
            length=language.length,
            world=1,
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), CLIP)
        adams[phase].param_groups[0]["lr"] = rates[phase].at(count)
        adams[phase].step()
        adams[phase].zero_grad(set_to_none=True)
        learner.requires_grad_(False)
        if phase is main:
            _follow(mean, learner, min(training.ema, (1 + count) / (10 + count)))
    return mean


def _adam(network: nn.Module, training: Training) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        network.parameters(), betas=training.betas, weight_decay=0.0, fused=True
    )


def _batch(method: Method, tokens: torch.Tensor, training: Training, step: int) -> StepInput:
    times = {
        use: stratified_times(training.seed, use, step, count=training.batch, t_min=t_min)
        for use, t_min in method.smallest_times.items()
    }
    noise = BatchNoise(training.seed, "noise", step, batch=training.batch)
    return StepInput(tokens, times, noise, step)


def _renewed(method: Method, networks: Mapping[str, nn.Module], step: int) -> dict[str, nn.Module]:
    """Return the teacher of a new round."""
    if not isinstance(method, SelfDistillation) or method.rounds.index(step) == 0:
        return {}
    if not method.rounds.is_first_of_round(step):
        return {}
    return {"teacher": copy.deepcopy(networks["student"]).requires_grad_(False)}


def _follow(mean: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for kept, value in zip(mean.parameters(), network.parameters(), strict=True):
            kept.lerp_(value, 1 - decay)
