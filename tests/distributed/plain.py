"""The same distillation in plain PyTorch: one process, one graph, the global batch at once."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from idlm_ds.engine.dist import World
from idlm_ds.models.dit import DiT, DiTConfig
from idlm_ds.noise import Noise, stratified_times
from idlm_ds.processes.base import Noisy, Process, at
from idlm_ds.processes.soft_tokens import SoftTokens
from idlm_ds.tensor_types import LatentInput

from . import toy


def distil(
    world: World,
    family: str,
    clip: float,
    phases: int,
    latent: int = 0,
    *,
    is_adapted: bool = False,
) -> dict[str, object]:
    """Run the first phases; called on one rank, whose process group it does not use."""
    del world
    process = toy.make_process(family)
    teacher, fake = (_network(role) for role in ("teacher", "fake"))
    student = _network("student", toy.with_latent(toy.NETWORK, latent))
    trainable = toy.is_adapted if is_adapted else lambda name: True
    learners = {
        "fake": _Learner(fake, "fake", clip, trainable),
        "student": _Learner(student, "student", clip, trainable),
    }
    windows = toy.make_windows()
    losses, norms, rates, num_visible = [], [], [], 0
    for step in range(phases):
        samples = range(step * toy.GLOBAL_BATCH, (step + 1) * toy.GLOBAL_BATCH)
        tokens = torch.from_numpy(windows.take(samples))
        uses = ["t", *(f"t-{k}" for k in range(2, toy.noisings_of(family) + 1))]
        t_input, *times = (
            stratified_times(toy.SEED, use, step, count=toy.GLOBAL_BATCH, t_min=t_min)
            for use, t_min in (("t-input", toy.INPUT_T_MIN), *((use, toy.T_MIN) for use in uses))
        )
        noise = Noise.of_samples(toy.SEED, "noise", samples=samples)
        learner = learners["student" if step % 3 == 2 else "fake"]
        with learner.learning():
            words = SoftTokens.hard(tokens, vocab_size=toy.VOCAB)
            given = process.corrupt(words, t_input, noise=noise)
            x_in = given.x_in
            if latent:
                z = noise.normal(toy.LENGTH, latent)
                x_in = LatentInput(x_in, z * _gate(given, family)[..., None])
            raw = student(x_in, given.at_t.sigma, at(given.positions))
            x_0 = process.relax(raw, given)
            if learner is learners["fake"]:
                loss = _fake_loss(process, fake, x_0, times[0], noise)
            else:
                judges, is_stopped = (teacher, fake), family == "dmd"
                gaps = [_gap(process, *judges, x_0, t, noise, is_stopped=is_stopped) for t in times]
                loss = torch.stack(gaps).mean()
            loss.backward()
        losses.append(loss.item())
        num_visible += int((given.x_t != toy.VOCAB - 1).all(-1).sum())
        norms.append(learner.norm())
        rates.append(learner.step())
    state = {k: v for learner in learners.values() for k, v in learner.state().items()}
    return {
        "losses": losses,
        "norms": norms,
        "rates": rates,
        "state": state,
        "num_visible": num_visible,
    }


def _fake_loss(process: Process, fake: DiT, x_0: SoftTokens, t: Tensor, noise: Noise) -> Tensor:
    noisy = process.corrupt(x_0, t, noise=noise)
    nats = process.loss(fake(noisy.x_in, noisy.at_t.sigma, at(noisy.positions)), noisy)
    return nats.sum() / (toy.GLOBAL_BATCH * toy.LENGTH)


def _gap(
    process: Process,
    teacher: DiT,
    fake: DiT,
    x_0: SoftTokens,
    t: Tensor,
    noise: Noise,
    *,
    is_stopped: bool,
) -> Tensor:
    noisy = process.corrupt(x_0, t, noise=noise)
    x_in = noisy.x_in.detach() if is_stopped else noisy.x_in
    raws = [net(x_in, noisy.at_t.sigma, at(noisy.positions)) for net in (teacher, fake)]
    return process.gap(*raws, noisy).sum() / (toy.GLOBAL_BATCH * toy.LENGTH)


def _gate(given: Noisy, family: str) -> Tensor:
    """How far more than half of a sequence is masked, or noise."""
    if family != "mdlm":
        share = 1 - given.at_t.alpha
        return (2 * share - 1).clamp(min=0)[:, None].expand(given.x_t.shape).float()
    is_masked = given.x_t == toy.VOCAB - 1
    return is_masked * (2 * is_masked.float().mean(1, keepdim=True) - 1).clamp(min=0)


def _network(role: str, config: DiTConfig = toy.NETWORK) -> DiT:
    source = toy.weights_of(role)
    return toy.plain_network(
        lambda name, shape: source.read(name, shape, 0, math.prod(shape)).view(shape), config
    )


class _Learner:
    """A network, AdamW, clipping, warm-up and a running mean, each written out."""

    def __init__(
        self,
        network: nn.Module,
        role: str,
        clip: float,
        trainable: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self.network = network
        self.role = role
        self.clip = clip
        self.count = 0
        self.trained = {n: p for n, p in network.named_parameters() if trainable(n)}
        self.means = {n: p.detach().clone() for n, p in self.trained.items()}
        self.adam = torch.optim.AdamW(
            self.trained.values(),
            lr=1e9,
            betas=toy.BETAS,
            eps=toy.EPS,
            weight_decay=toy.WEIGHT_DECAY,
        )

    def learning(self) -> "_Learner":
        return self

    def __enter__(self) -> None:
        for parameter in self.trained.values():
            parameter.requires_grad_(True)

    def __exit__(self, *error: object) -> None:
        self.network.requires_grad_(False)

    def norm(self) -> float:
        limit = self.clip if self.clip else torch.inf
        return nn.utils.clip_grad_norm_(self.trained.values(), limit).item()

    def step(self) -> float:
        self.count += 1
        rate = toy.PEAK[self.role] * min(1.0, self.count / toy.WARMUP)
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        decay = min(toy.EMA_DECAY, (1 + self.count) / (10 + self.count))
        for name, parameter in self.trained.items():
            self.means[name].mul_(decay).add_(parameter.detach(), alpha=1.0 - decay)
        return rate

    def state(self) -> dict[str, Tensor]:
        state = {f"{self.role}/ema/{n}": mean for n, mean in self.means.items()}
        for name, parameter in self.trained.items():
            state[f"{self.role}/weight/{name}"] = parameter.detach()
            for key in ("exp_avg", "exp_avg_sq"):
                state[f"{self.role}/{key}/{name}"] = self.adam.state[parameter][key]
        return state
