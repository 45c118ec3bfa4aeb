"""The ways to draw samples that are compared."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, final

import torch
from torch import Generator, Tensor, nn

from bench.published import Published, published
from bench.published_sampler import Chain, sample_blocks, sample_chain
from bench.sizes import Sizes, filled, weights
from idlm_ds.models.init import InitialWeights
from idlm_ds.models.llada import LLaDA, LLaDAConfig, initial_value
from idlm_ds.noise import Noise
from idlm_ds.options import AT_LEAST_1, Options, option
from idlm_ds.processes.base import at
from idlm_ds.registry.samplers import ANCESTRAL, SAMPLERS
from idlm_ds.registry.table import OneOf
from idlm_ds.samplers.blockwise import sample_blockwise
from idlm_ds.samplers.config import SamplerConfig

DENSE, OURS, BODY = "dense", "ours", "body"


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling(Options):
    """How samples are drawn."""

    steps: int = option(16, "steps of the chain", rule=AT_LEAST_1)
    sampler: Annotated[str, OneOf(SAMPLERS, lambda name: SAMPLERS[name].is_chain)] = option(
        ANCESTRAL, "reverse step of ours"
    )
    blockwise: bool = option(False, "continue prompts in blocks, greedily, with LLaDA's network")
    prompt: int = option(64, "tokens of a prompt, with --blockwise", rule=AT_LEAST_1)
    block: int = option(32, "tokens of a block, with --blockwise", rule=AT_LEAST_1)


@dataclass
class Drawing:
    """A network, and the ways to draw from it."""

    sizes: Sizes
    sampling: Sampling
    device: torch.device = torch.device("cpu")
    passes: float = field(default=0.0, init=False)
    """Passes of the network that our last set took, mean over sequences."""

    def __post_init__(self) -> None:
        make, source = self.sizes.make, weights(1)
        if self.sampling.blockwise:
            make, source = self._llada, InitialWeights(initial_value, seed=1)
        self.network = filled(make, source, device=self.device)
        self.process = self.sizes.process()
        self.drawn = 0

    @property
    def ways(self) -> dict[str, Callable[[], Chain]]:
        """All ways by name; ``body`` makes as many passes as ours and projects nothing."""
        return {DENSE: self.dense, OURS: self.ours, BODY: self.body}

    def dense(self) -> Chain:
        """Draw as published."""
        form = self._form()
        if self.sampling.blockwise:
            return sample_blocks(form, self.network, self._prompts(), **self._blocks())
        prior = self.process.prior(self.sizes.batch, self.sizes.length, noise=self._noise())
        return sample_chain(form, self.network, prior, self.sampling.steps)

    def ours(self) -> Chain:
        """Draw with the package."""
        noise = self._noise()
        if self.sampling.blockwise:
            prompts = self._prompts()
            done = sample_blockwise(
                self.process, self.network, prompts, noise=noise, **self._blocks()
            )
        else:
            chain = SamplerConfig(steps=self.sampling.steps, sampler=self.sampling.sampler)
            x = self.process.prior(self.sizes.batch, self.sizes.length, noise=noise)
            done = chain.draw(self.process, self.network, x, noise=noise)
        self.passes = float(done.evaluations.double().mean())
        return Chain(done.tokens, round(self.passes))

    @torch.no_grad()
    def body(self) -> Chain:
        """Run the network only."""
        passes = round(self.passes) or self.sampling.steps
        x, sigma = self._prompts(self._width), torch.ones(self.sizes.batch, device=self.device)
        nowhere = torch.empty(0, dtype=torch.long, device=self.device)
        for _ in range(passes):
            self.network(x, sigma, at(nowhere))
        return Chain(x, passes)

    @property
    def _width(self) -> int:
        return self.sizes.length + (self.sampling.prompt if self.sampling.blockwise else 0)

    def _blocks(self) -> dict[str, int]:
        sampling = self.sampling
        return {"length": self.sizes.length, "block": sampling.block, "steps": sampling.steps}

    def _prompts(self, width: int | None = None) -> Tensor:
        shape = (self.sizes.batch, width or self.sampling.prompt)
        generator = Generator().manual_seed(0)
        return torch.randint(self.sizes.vocab - 1, shape, generator=generator).to(self.device)

    def _form(self) -> Published:
        return published(self.process, Generator(self.device).manual_seed(self.drawn))

    def _noise(self) -> Noise:
        self.drawn += 1
        samples = range(self.drawn * self.sizes.batch, (self.drawn + 1) * self.sizes.batch)
        return Noise.of_samples(0, "bench", samples=samples, device=self.device)

    def _llada(self) -> nn.Module:
        sizes = self.sizes
        config = LLaDAConfig(
            vocab_size=sizes.vocab,
            hidden=sizes.hidden,
            blocks=sizes.blocks,
            heads=sizes.heads,
            ffn=3 * sizes.hidden,
        )
        return LLaDA(config)
