"""Generation block by block, the most certain tokens first: LLaDA's sampler (arXiv:2502.09992)."""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch

from idlm_ds.noise import Noise, draw_categorical
from idlm_ds.processes.absorbing import Absorbing
from idlm_ds.processes.base import Denoiser, at
from idlm_ds.samplers.reverse import Sampled
from idlm_ds.tensor_types import Logits, Positions, TokenIds

Remasking: TypeAlias = Literal["low_confidence", "random"]
"""Which candidates a step throws away: the least certain ones, or any."""


def check_blockwise(
    process: Absorbing, num_given: int, *, length: int, block: int, steps: int,
    temperature: float = 0.0, remasking: str = "low_confidence", guidance: float = 0.0,
    banned: Sequence[int] = (),
) -> None:  # fmt: skip
    """Refuse what ``sample_blockwise`` cannot do with prompts of ``num_given`` tokens.

    Raises:
        ValueError: Names the argument, what is wrong with it and what is allowed.
    """
    blocks, size, known = length // max(block, 1) or 1, process.vocab_size, get_args(Remasking)
    is_words = all(0 <= i < size for i in banned) and len({process.mask_id, *banned}) < size
    complaints = {
        f"length: must be at least 1, got {length}": length >= 1,
        f"block: must divide length {length}, got {block}": block >= 1 and length % block == 0,
        f"steps: must divide into {blocks} blocks, got {steps}": steps > 0 and steps % blocks == 0,
        f"temperature: must be 0 or more, got {temperature}": 0 <= temperature < math.inf,
        f"remasking: must be one of {known}, got {remasking}": remasking in known,
        f"guidance: must be 0 or more, got {guidance}": 0 <= guidance < math.inf,
        f"guidance: must be 0 without a prompt, got {guidance}": num_given > 0 or guidance == 0,
        f"banned: must be ids below {size} and leave a word, got {list(banned)}": is_words,
    }
    for complaint, is_good in complaints.items():
        if not is_good:
            raise ValueError(complaint)


@torch.no_grad()
def sample_blockwise(
    process: Absorbing, denoiser: Denoiser, prompt: TokenIds, *, length: int, block: int,
    steps: int, noise: Noise, temperature: float = 0.0, remasking: Remasking = "low_confidence",
    guidance: float = 0.0, banned: Sequence[int] = (),
) -> Sampled:  # fmt: skip
    """Continue prompts by ``length`` tokens, in blocks from left to right.

    A step finds a candidate for every masked position of the current block and keeps the most
    certain ones, equally many in each step of the block up to rounding.

    Args:
        process: A masked family.
        denoiser: The network; one that is shown the time sees that at which as many are masked.
        prompt: Never changed; may have no positions.
        length: Tokens to add.
        block: Tokens of a block; 1 writes from left to right, ``length`` in any order.
        steps: Of the whole run; those of a block that is already full decide nothing.
        noise: One stream per sequence; the result for a sequence does not depend on the others.
        temperature: A candidate is drawn from ``softmax(raw / temperature)``, as publications do
            by ``argmax exp(raw) / (-log u)^temperature``; at 0 it is the likeliest word.
        remasking: What certainty is: the candidate's probability at temperature 1, or chance.
        guidance: w in ``un + (w + 1) (raw - un)``, where ``un`` are scores with a masked prompt.
        banned: Words that are never chosen, such as the end of text.

    Precision: float64.
    Collective: calls the network once a step, also when nothing is decided, so that ranks which
    share ZeRO-3 weights stay together.

    Raises:
        ValueError: See ``check_blockwise``.
    """
    batch, given = prompt.shape
    check_blockwise(
        process, given, length=length, block=block, steps=steps, temperature=temperature,
        remasking=remasking, guidance=guidance, banned=banned,
    )  # fmt: skip
    x = torch.cat([prompt, process.prior(batch, length, noise=noise)], 1)
    never = torch.tensor([process.mask_id, *banned], device=x.device)
    evaluations = torch.zeros(batch, dtype=torch.long)
    pace = steps * block // length
    for step in range(steps):
        kept = block // pace + (step % pace < block % pace)
        first = given + step // pace * block
        is_open = x[:, first : first + block] == process.mask_id
        # Drawn for every position in every step, so that streams stay aligned.
        u_word, u_rank = noise.uniform(block)[is_open], noise.uniform(block)[is_open]
        row, column = is_open.nonzero(as_tuple=True)
        positions = row * x.shape[1] + first + column
        shown = x if kept else x[:1]
        raw = _ask(process, denoiser, shown, positions)
        if guidance:
            blind = shown.index_fill(1, torch.arange(given, device=x.device), process.mask_id)
            un = _ask(process, denoiser, blind, positions)
            raw = un + (guidance + 1) * (raw - un)
        evaluations += (1 + bool(guidance)) * bool(kept)
        log_probs = process.predict(raw.index_fill(1, never, -math.inf))
        words = log_probs.argmax(-1)
        if temperature:
            words = draw_categorical((log_probs / temperature).softmax(-1), u_word)
        certainty = u_rank if remasking == "random" else log_probs.gather(1, words[:, None])[:, 0]
        # Every sequence has as many open positions; of equally certain ones the left is first.
        num_open = len(positions) // batch
        order = certainty.view(batch, num_open).argsort(stable=True, descending=True)
        order += num_open * torch.arange(batch, device=x.device)[:, None]
        best = order[:, :kept].flatten()
        x.view(-1)[positions[best]] = words[best]
    return Sampled(x, evaluations, frozenset(noise.dtypes))


def _ask(process: Absorbing, denoiser: Denoiser, x: TokenIds, positions: Positions) -> Logits:
    return denoiser(x, process.sigma_of(x), at(positions)).double()
