"""The figures a run ends with: teacher, student and the honest controls under one judge."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.dist import World
from idlm_ds.engine.trio import Borrowed, Learner
from idlm_ds.evaluation.row import Row
from idlm_ds.metrics.accumulate import Estimate, MeanAccumulator, PerplexityAccumulator
from idlm_ds.metrics.entropy import distinct_ngrams, unigram_entropy
from idlm_ds.metrics.judge import Judge
from idlm_ds.processes.base import Denoiser, Process
from idlm_ds.samplers.batched import sample_batched
from idlm_ds.samplers.config import SamplerConfig

CLOSE_ENOUGH = 0.005
"""Nats of entropy within which two sets count as matched."""

MAX_CORRECTIONS = 2

FIRST_GUESS = 0.85
COLDEST, HOTTEST = 0.2, 2.0

TYPICAL_SLOPE = 0.9
"""Nats of entropy a unit of temperature, to begin with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How samples are drawn and judged."""

    num_samples: int
    length: int
    student_steps: Sequence[int]
    teacher_steps: Sequence[int]
    matched_steps: Sequence[int]
    target_steps: int
    """The student's step count whose entropy the tempered teacher is given."""

    batch: int
    seed: int

    chain: SamplerConfig
    """How samples are drawn; steps and temperature are set row by row."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A row of the report and the texts behind it."""

    row: Row
    texts: list[str]


@final
class Evaluation:
    """Draws and scores sets of samples, each rank its share."""

    def __init__(
        self,
        process: Process,
        tokenizer: Tokenizer,
        judge: Judge,
        protocol: Protocol,
        *,
        world: World,
    ) -> None:
        self._process = process
        self._tokenizer = tokenizer
        self._judge = judge
        self._protocol = protocol
        self._world = world

    def run(self, teacher: Borrowed, student: Learner, heldout: Tensor) -> Iterator[Measured]:
        """Yield one measurement after the other, students first.

        Collective: every rank must draw all of them; the yielded values are the same on all.

        Args:
            teacher: The network that was distilled.
            student: What came of it; it is taken at its running mean.
            heldout: (num_samples, length) windows of unseen text.
        """
        yield self._score("held_out", heldout)
        target = math.nan
        for steps in self._protocol.student_steps:
            with student.ema.in_place():
                measured = self.sample("student", student.module, steps)
            if steps == self._protocol.target_steps:
                target = measured.row.entropy
            yield measured
        for steps in self._protocol.teacher_steps:
            yield self.sample("teacher", teacher.module, steps)
        temperature = FIRST_GUESS
        for steps in self._protocol.matched_steps:
            matched = self.match(teacher.module, steps, target, temperature)
            temperature = matched.row.temperature
            yield matched

    def sample(
        self, model: str, denoiser: Denoiser, steps: int, temperature: float = 1.0
    ) -> Measured:
        """Collective: draw a whole set and score it."""
        began = time.perf_counter()
        stream = f"{model}/{steps}"
        chain = replace(self._protocol.chain, steps=steps, temperature=temperature)
        tokens, nfe = self._draw(denoiser, chain, stream)
        seconds = time.perf_counter() - began
        return self._score(model, tokens, chain=chain, nfe=nfe, seconds=seconds)

    def match(self, denoiser: Denoiser, steps: int, target: float, guess: float) -> Measured:
        """Collective: draw the teacher's set at the temperature that gives it an entropy.

        Entropy rises with temperature nearly linearly here, so a secant step or two from a fair
        guess suffice. The same random numbers serve every temperature, and whole sets are drawn:
        small ones miss the target by more than the tolerance. What comes nearest is kept.
        """
        nearest = last = self.sample("teacher_matched", denoiser, steps, guess)
        slope = TYPICAL_SLOPE
        for _ in range(MAX_CORRECTIONS):
            at, missed = last.row.temperature, last.row.entropy - target
            guess = min(HOTTEST, max(COLDEST, at - missed / slope))
            if abs(missed) < CLOSE_ENOUGH or guess == at:
                break
            last, before = self.sample("teacher_matched", denoiser, steps, guess), last
            nearest = min(nearest, last, key=lambda m: abs(m.row.entropy - target))
            rise = (last.row.entropy - before.row.entropy) / (guess - at)
            slope = rise if rise > 0 else TYPICAL_SLOPE
        return nearest

    def _draw(self, denoiser: Denoiser, chain: SamplerConfig, stream: str) -> tuple[Tensor, float]:
        count = self._protocol.num_samples
        shares = [range(rank, count, self._world.size) for rank in range(self._world.size)]
        sampled = sample_batched(
            self._process,
            denoiser,
            shares[self._world.rank],
            chain,
            length=self._protocol.length,
            seed=self._protocol.seed,
            stream=stream,
            batch=self._protocol.batch,
            device=self._world.device,
            num_batches=-(-len(shares[0]) // self._protocol.batch),
        )
        tokens = torch.empty(count, self._protocol.length, dtype=torch.long)
        for share, part in zip(shares, self._world.gather(sampled.tokens.numpy()), strict=True):
            tokens[list(share)] = torch.from_numpy(part)
        evaluations = self._world.sum(sampled.evaluations.sum())
        return tokens, evaluations.item() / count

    def _score(
        self,
        model: str,
        tokens: Tensor,
        *,
        chain: SamplerConfig | None = None,
        nfe: float | None = None,
        seconds: float | None = None,
    ) -> Measured:
        texts = self._tokenizer.decode(tokens.tolist())
        gen_ppl = self._judge_share(texts)
        entropy = MeanAccumulator()
        entropy.update(unigram_entropy(tokens))
        spread = entropy.compute()
        row = Row(
            model=model,
            steps=chain.steps if chain else None,
            nfe=nfe,
            sampler=chain.label if chain else "none",
            precision=chain.precision if chain else "none",
            temperature=chain.temperature if chain else 1.0,
            gen_ppl=gen_ppl.value,
            gen_ppl_se=gen_ppl.se,
            entropy=spread.value,
            entropy_se=spread.se,
            distinct_2=distinct_ngrams(tokens),
            seconds=seconds,
            num_samples=len(texts),
            judge=self._judge.name,
            seed=self._protocol.seed,
        )
        return Measured(row, texts)

    def _judge_share(self, texts: Sequence[str]) -> Estimate:
        mine = texts[self._world.rank :: self._world.size]
        local = PerplexityAccumulator()
        if mine:
            local.update(*self._judge.score(mine, batch=32))
        return PerplexityAccumulator.from_sums(self._world.sum(local.sums).cpu()).compute()
