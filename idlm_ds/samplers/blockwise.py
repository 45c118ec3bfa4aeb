"""Generation block by block, the most certain tokens first: LLaDA's sampler (arXiv:2502.09992)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from idlm_ds.kernels.each import each_block
from idlm_ds.kernels.long_rows import Softmax
from idlm_ds.kernels.projection import ScoreRows
from idlm_ds.noise import Noise
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Denoiser, Read, Use, each
from idlm_ds.processes.latent import draw_latent, show_latent
from idlm_ds.samplers.reverse import OnStep, Sampled
from idlm_ds.tensor_types import Logits, PerPosition, Positions, TokenIds

Remasking: TypeAlias = Literal["low_confidence", "random"]
"""Which candidates a step throws away: the least certain ones, or any."""


def check_blockwise(
    process: Absorbing,
    num_given: int,
    *,
    length: int,
    block: int,
    steps: int,
    temperature: float = 0.0,
    remasking: str = "low_confidence",
    guidance: float = 0.0,
    banned: Sequence[int] = (),
) -> None:
    """Validate the settings of ``sample_blockwise`` for prompts of ``num_given`` tokens.

    Raises:
        ValueError: Names the argument, what is wrong with it and what is allowed.
    """
    blocks, size, known = length // max(block, 1) or 1, process.vocab_size, get_args(Remasking)
    is_possible = all(0 <= i < size for i in banned) and len({process.mask_id, *banned}) < size
    complaints = {
        f"length: must be at least 1, got {length}": length >= 1,
        f"block: must divide length {length}, got {block}": block >= 1 and length % block == 0,
        f"steps: must divide into {blocks} blocks, got {steps}": steps > 0 and steps % blocks == 0,
        f"temperature: must be 0 or more, got {temperature}": 0 <= temperature < math.inf,
        f"remasking: must be one of {known}, got {remasking}": remasking in known,
        f"guidance: must be 0 or more, got {guidance}": 0 <= guidance < math.inf,
        f"guidance: must be 0 without a prompt, got {guidance}": num_given > 0 or guidance == 0,
        f"banned: must be ids below {size} and leave a word, got {list(banned)}": is_possible,
    }
    for complaint, is_good in complaints.items():
        if not is_good:
            raise ValueError(complaint)


@torch.no_grad()
def sample_blockwise(
    process: Absorbing,
    denoiser: Denoiser,
    prompt: TokenIds,
    *,
    length: int,
    block: int,
    steps: int,
    noise: Noise,
    temperature: float = 0.0,
    remasking: Remasking = "low_confidence",
    guidance: float = 0.0,
    banned: Sequence[int] = (),
    latent: int = 0,
    on_step: OnStep | None = None,
) -> Sampled:
    """Continue prompts by ``length`` tokens, in blocks from left to right.

    A step draws a candidate for every masked position of the current block and keeps the most
    certain ones, equally many in each step of the block up to rounding.

    Args:
        process: A masked family.
        denoiser: The network; if time-conditioned, it is shown the time at which as many positions
            are masked on average.
        prompt: Never changed; may have no positions.
        length: Tokens to add.
        block: Tokens of a block; 1 writes from left to right, ``length`` in any order.
        steps: Steps of all blocks together; once a block is full, its other steps decide nothing.
        noise: One stream per sequence; the result for a sequence does not depend on the others.
        temperature: A candidate is drawn from ``softmax(raw / temperature)``, as publications do
            by ``argmax exp(raw) / (-log u)^temperature``; at 0 it is the likeliest token.
        remasking: How certainty is measured: the candidate's probability at temperature 1, or a
            random number.
        guidance: w in ``un + (w + 1) (raw - un)``, where ``un`` are scores with a masked prompt.
        banned: Tokens that are never chosen, such as the end of text.
        latent: Entries of the network's latent, drawn afresh in every step; scores with and
            without a prompt share it. 0 for a network without one.
        on_step: Watches the run; its ``t`` is the share of the ``length`` new positions that are
            still masked.

    Precision: see ``Softmax``.
    Collective: calls the network once a step, also when nothing is decided, so that ranks which
    share ZeRO-3 weights stay together.

    Raises:
        ValueError: See ``check_blockwise``.
    """
    batch, given = prompt.shape
    check_blockwise(
        process,
        given,
        length=length,
        block=block,
        steps=steps,
        temperature=temperature,
        remasking=remasking,
        guidance=guidance,
        banned=banned,
    )
    x = torch.cat([prompt, process.prior(batch, length, noise=noise)], 1)
    never = torch.tensor([process.mask_id, *banned], device=x.device)
    choose = _Choose(never, temperature)
    evaluations, num_masked = torch.zeros(batch, dtype=torch.long), length
    # The remainder of an uneven division is decided in the first steps of each block.
    block_steps = steps * block // length
    for k in range(steps):
        kept = block // block_steps + (k % block_steps < block % block_steps)
        first = given + k // block_steps * block
        is_open = x[:, first : first + block] == process.mask_id
        # Drawn for every position of the block in every step, also for those that are decided: how
        # far a stream has been read then depends on the step alone.
        u_token, u_rank = noise.uniform(block)[is_open], noise.uniform(block)[is_open]
        row, column = is_open.nonzero(as_tuple=True)
        positions = row * x.shape[1] + first + column
        # A step that decides nothing still runs the network once: ranks that share ZeRO-3 weights
        # must make the same calls.
        x_in = x if kept else x[:1]
        z = draw_latent(latent, x.shape[1], noise=noise)
        run = _BlockStep(process, denoiser, None if z is None else z[: len(x_in)])
        if guidance:
            without_prompt = x_in.clone()
            without_prompt[:, :given] = process.mask_id
            pair = x_in, without_prompt
            chosen = run.guided(pair, guidance, choose, positions, u_token)
        else:
            chosen = run(x_in, each(choose, positions, u_token))
        evaluations += (1 + bool(guidance)) * bool(kept)
        tokens = chosen[:, 0].long()
        certainty = u_rank if remasking == "random" else chosen[:, 1]
        # Every sequence has as many open positions; of equally certain ones the left is first.
        num_open = len(positions) // batch
        order = certainty.view(batch, num_open).argsort(stable=True, descending=True)
        order += num_open * torch.arange(batch, device=x.device)[:, None]
        best = order[:, :kept].flatten()
        x.view(-1)[positions[best]] = tokens[best]
        num_masked -= kept
        if on_step is not None:
            revealed = torch.zeros_like(x, dtype=torch.bool)
            revealed.view(-1)[positions[best]] = True
            # The next step writes to x, and a watcher may keep what it is given.
            on_step(k, num_masked / length, x.clone(), revealed)
    return Sampled(x, evaluations)


@dataclass(frozen=True, slots=True)
class _Choose:
    """Chooses a candidate in each row of scores."""

    never: Tensor
    temperature: float

    def __call__(self, raw: Logits, u: PerPosition) -> Float64[Tensor, "P 2"]:
        """Return the tokens, and the logarithms of their probabilities at temperature 1."""
        raw.index_fill_(1, self.never, -math.inf)
        answer = Softmax.of(raw)
        if self.temperature:
            tempered = answer if self.temperature == 1 else Softmax.of(raw, self.temperature)
            tokens = tempered.draw(u)
        else:
            tokens = answer.best()
        return torch.stack([tokens.double(), answer.log_probs_at(tokens)], 1)


@dataclass(frozen=True, slots=True)
class _BlockStep:
    """Runs the network in one step."""

    process: Absorbing
    denoiser: Denoiser
    z: Float[Tensor, "B L Z"] | None
    """The latent of the step."""

    def __call__(self, x: TokenIds, read: Read) -> Tensor:
        """Show the network a state and its time."""
        sigma = self.process.sigma_of(x)
        shown = show_latent(self.process, x, self.z, x_t=x, sigma=sigma)
        return self.denoiser(shown, sigma, read)

    def guided(
        self,
        pair: tuple[TokenIds, TokenIds],
        guidance: float,
        use: Use,
        positions: Positions,
        *rows: Tensor,
    ) -> Tensor:
        """Apply ``use`` to guided scores, for which two blocks exist at a time."""
        x, without_prompt = pair
        hidden = self(x, lambda head: head.fused(_hidden_states, positions))

        def use_guided(
            hidden_un: Float[Tensor, "P D"],
            weight: Float[Tensor, "V D"],
            bias: Float[Tensor, " V"] | None,
            index: Positions,
        ) -> Tensor:
            scores = ScoreRows(hidden, weight, bias)
            buffer = scores.buffer()

            def guide(un: Logits, index: Positions, *rows: Tensor) -> Tensor:
                raw = scores.scores(index, buffer)
                return use(un.add_(raw.sub_(un), alpha=guidance + 1), *rows)

            return each_block(hidden_un, weight, bias, guide, index, *rows)

        every = torch.arange(len(positions), device=x.device)
        return self(without_prompt, lambda head: head.fused(use_guided, positions, every))


def _hidden_states(hidden: Tensor, *projection: Tensor | None) -> Tensor:
    del projection
    return hidden
