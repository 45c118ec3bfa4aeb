"""Reverse chains as published code writes them: every position, the whole vocabulary, float64.

Shapes: B sequences, L positions, V vocabulary entries.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.published import (
    Clock,
    Draw,
    Published,
    PublishedMDLM,
    PublishedSEDD,
)
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.schedules.base import ScheduleAt


@dataclass(frozen=True, slots=True)
class Chain:
    """Samples (B, L) and how often the network was run."""

    tokens: Tensor
    passes: int


def dense_posterior(form: Published, f: Tensor, x: Tensor, t: ScheduleAt, s: ScheduleAt) -> Tensor:
    """Return what tokens at ``s`` are drawn in proportion to, given answers ``f``: (B, L, V)."""
    if isinstance(form, PublishedMDLM):
        moving = f * (t.masked - s.masked)[:, None, None]
        moving[..., form.mask] = s.masked[:, None]
        return moving
    vocab_size, here = f.shape[-1], F.one_hot(x, f.shape[-1]).to(f.dtype)
    alpha_t, alpha_s = t.alpha[:, None, None], s.alpha[:, None, None]
    ratio = alpha_t / alpha_s
    weighted = alpha_t * vocab_size * f * here + (ratio - alpha_t) * here
    weighted = weighted + (alpha_s - alpha_t) * f + (1 - ratio) * (1 - alpha_s) / vocab_size
    return weighted / (alpha_t * vocab_size * f.gather(-1, x[..., None]) + 1 - alpha_t)


def tweedie(form: PublishedSEDD, raw: Tensor, x: Tensor, t: ScheduleAt, s: ScheduleAt) -> Tensor:
    """Return the analytic step of SEDD from raw scores: staggered ratios times the transition."""
    draw = Draw(x, x, Clock(t.alpha, -t.dalpha, t.sigma))
    ratios = form.scores(raw.double(), draw).exp()
    fall = (t.sigma - s.sigma)[:, None]
    # Ratios of the state at s: all grow, and what the mask has gained is taken away again.
    staggered = ratios * fall.exp()[..., None]
    staggered[..., form.mask] += (1 - fall.exp()) * ratios.sum(-1)
    stay = F.one_hot(x, raw.shape[-1]) * (-fall).exp()[..., None]
    masked = (x == form.mask)[..., None]
    probs = staggered * (stay + masked * (1 - (-fall).exp()[..., None]))
    # The last step leaves no mask.
    probs[..., form.mask] *= (s.masked > 0)[:, None]
    return probs.clamp(min=0)


@torch.no_grad()
def sample_chain(form: Published, network: nn.Module, x: Tensor, steps: int) -> Chain:
    """Run a chain from the prior to t=0; MDLM keeps its answer while no token has changed."""
    passes, kept = 0, None
    for now, then in pairwise(uniform_grid(steps)):
        times = (time.expand(len(x)).to(x.device) for time in (now, then))
        t, s = form.process.schedule.at(next(times)), form.process.schedule.target(next(times))
        if kept is None:
            draw = Draw(x, x, Clock(t.alpha, -t.dalpha, t.sigma))
            raw, passes = form.raw(network, draw), passes + 1
            is_sedd = isinstance(form, PublishedSEDD)
            kept = raw if is_sedd else form.log_probs(raw, draw).double().exp()
        step = tweedie if isinstance(form, PublishedSEDD) else dense_posterior
        drawn = form.race(step(form, kept, x, t, s))
        if isinstance(form, PublishedMDLM):
            drawn = torch.where(x == form.mask, drawn, x)
        is_reused = type(form) is PublishedMDLM and torch.equal(drawn, x)
        kept, x = kept if is_reused else None, drawn
    return Chain(x, passes)


@torch.no_grad()
def sample_blocks(
    form: PublishedMDLM, network: nn.Module, prompt: Tensor, *, length: int, block: int, steps: int
) -> Chain:
    """Continue prompts greedily, the most certain tokens of a block first (LLaDA)."""
    batch, given = prompt.shape
    x = torch.cat([prompt, torch.full((batch, length), form.mask, device=prompt.device)], 1)
    nothing = torch.zeros(batch, device=x.device)
    a_block = steps * block // length
    for k in range(steps):
        raw = form.raw(network, Draw(x, x, Clock(nothing, nothing, nothing)))
        raw[..., form.mask] = -torch.inf
        tokens = raw.argmax(-1)
        certainty = raw.double().softmax(-1).gather(-1, tokens[..., None])[..., 0]
        end = given + (k // a_block + 1) * block
        masked = x == form.mask
        certainty[:, end:] = -torch.inf
        certainty = torch.where(masked, certainty, -torch.inf)
        kept = block // a_block + (k % a_block < block % a_block)
        best = certainty.topk(kept, dim=-1).indices
        x = x.scatter(1, best, torch.where(masked, tokens, x).gather(1, best))
    return Chain(x, steps)
