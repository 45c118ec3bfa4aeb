"""What a run ends with: its networks and the honest controls, measured under one judge."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, final

from torch import nn

from idlm_ds.build.processes import make_sampler_config
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.dist import World
from idlm_ds.engine.trio import Borrowed, Learner
from idlm_ds.evaluation.cell import Cell
from idlm_ds.evaluation.draw import SampleSet, draw_cell
from idlm_ds.evaluation.kept import KeptSets
from idlm_ds.evaluation.matching import (
    DISTINCT_2,
    ENTROPY,
    FIRST_GUESS,
    JudgedSet,
    TemperatureTries,
)
from idlm_ds.evaluation.row import (
    HELD_OUT,
    MATCHED,
    MATCHED_DISTINCT,
    REPEATED,
    Row,
    judge_columns,
    sample_columns,
)
from idlm_ds.evaluation.score import score_set
from idlm_ds.evaluation.sources import relaxation_of, sampler_settings, token_cell
from idlm_ds.metrics.judge import Judge
from idlm_ds.processes.base import Process
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.tensor_types import TokenIds

MATCHED_STEPS = 8
"""The student's steps whose diversity the matched teacher has; the most where it takes no 8."""


@dataclass(frozen=True, slots=True)
class LiveNetwork:
    """A network on its engine, as a source of samples."""

    name: str
    """As people read it."""

    stream: str
    """Names its random numbers and the files of its samples."""

    source: str
    """Fingerprint of its weights."""

    borrow: Callable[[], AbstractContextManager[nn.Module]]
    """Lends the network with the weights to be measured."""

    latent: int = 0
    """Entries of its latent."""

    relaxation: str | None = None
    """What of its samples was noised when it learned; see ``Cell``."""


@contextmanager
def averaged(role: Learner) -> Iterator[nn.Module]:
    """Lend a network at its running mean."""
    with role.ema.in_place():
        yield role.module


@dataclass(frozen=True, slots=True)
class Measured:
    """A row of the report and the texts behind it."""

    row: Row
    texts: Sequence[str]
    gen_ppl: float | None
    """Of the texts; that of a matched row is read off between several sets."""

    stream: str | None
    """Names the file of the samples; None for text that nothing sampled."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class RunEvaluation:
    """Draws and scores what a run's report shows, each rank its share."""

    recipe: DistillRecipe
    process: Process
    tokenizer: Tokenizer
    judge: Judge
    judge_print: str
    """What its scores depend on, beside its name."""

    weights: Mapping[str, str]
    """Fingerprints of ``student`` and ``teacher``."""

    kept: KeptSets
    world: World

    def measure(self, student: Learner, teacher: Borrowed, heldout: TokenIds) -> Iterator[Measured]:
        """Yield one measurement after the other: unseen text, student, teacher, matched teacher.

        ``heldout`` has as many windows of unseen text as each set has samples.

        Collective: every rank must draw all of them; the yielded values are the same on all.
        """
        section = self.recipe.eval
        latent = self.recipe.student.latent.size
        in_rounds = self.recipe.objective.is_in_rounds
        relaxation = None if in_rounds else relaxation_of(self.recipe.process)
        lent = (lambda: averaged(student)), (lambda: nullcontext(teacher.module))
        prints = self.weights["student"], self.weights["teacher"]
        distilled = LiveNetwork("student", "student", prints[0], lent[0], latent, relaxation)
        original = LiveNetwork("teacher", "teacher", prints[1], lent[1])
        real = self._score(*token_cell(HELD_OUT, heldout, self.tokenizer))
        yield self._measured(real)
        yield self._measured(self._repeated(heldout, real))
        by_steps: dict[int, JudgedSet] = {}
        for steps in section.steps:
            by_steps[steps] = self._draw(distilled, steps)
            yield self._measured(by_steps[steps], "student")
        for steps in section.teacher_steps:
            yield self._measured(self._draw(original, steps), "teacher")
        target = by_steps.get(MATCHED_STEPS, by_steps[section.steps[-1]])
        control = replace(original, name=MATCHED, stream="teacher_matched")
        guess = FIRST_GUESS
        for steps in section.matched_steps:
            tries = TemperatureTries(partial(self._draw, control, steps))
            guess = tries.search(ENTROPY, target.level(ENTROPY), guess)
            # The second match may draw sets that give the first its slope, so it comes before it.
            distinct = tries.compare(DISTINCT_2, target, section.seed)
            in_entropy = tries.compare(ENTROPY, target, section.seed)
            yield self._measured_match(*in_entropy, MATCHED, "teacher_matched")
            yield self._measured_match(*distinct, MATCHED_DISTINCT, "teacher_matched_distinct_2")

    def _repeated(self, heldout: TokenIds, real: JudgedSet) -> JudgedSet:
        """Repeat the window of unseen text whose perplexity is nearest to that of all of it."""
        nats, tokens = real.scores.nats, real.scores.tokens.double()
        miss = (nats / tokens - nats.sum() / tokens.sum()).abs().nan_to_num(math.inf)
        typical = heldout[miss.argmin()].expand_as(heldout)
        return self._score(*token_cell(REPEATED, typical, self.tokenizer))

    def _draw(self, network: LiveNetwork, steps: int, temperature: float = 1.0) -> JudgedSet:
        """Draw a set and score it; the same random numbers serve every temperature."""
        section, length = self.recipe.eval, self.recipe.data.length
        config = make_sampler_config(section, self.process, length)
        config = replace(config, steps=steps, temperature=temperature, latent=network.latent)
        cell = Cell(
            model=network.name,
            source=network.source,
            family=self.recipe.process.name,
            **sampler_settings(config),
            relaxation=network.relaxation,
            seed=section.seed,
            num_samples=section.num_samples,
            length=length,
            tokenizer=self.tokenizer.fingerprint[:16],
        )
        stream = f"{network.stream}/{steps}"

        def draw() -> SampleSet:
            with network.borrow() as module:
                return draw_cell(
                    cell,
                    config,
                    process=self.process,
                    network=module,
                    tokenizer=self.tokenizer,
                    stream=stream,
                    batch=section.batch,
                    ranks=self.world,
                )

        return self._score(cell, self.kept.samples(cell, stream, draw))

    def _score(self, cell: Cell, samples: SampleSet) -> JudgedSet:
        judge = [self.judge.name, self.judge.context, self.judge.prefix_bos, self.judge_print]
        score = partial(score_set, self.judge, samples.texts, ranks=self.world)
        return JudgedSet(cell, samples, self.kept.scores(cell, samples.texts, judge, score))

    def _measured(self, judged: JudgedSet, stream: str | None = None) -> Measured:
        row = sample_columns([judged.cell], [judged.samples])
        row |= judge_columns(self.judge, "published", [judged.scores])
        return Measured(row, judged.samples.texts, row["gen_ppl"], stream)

    def _measured_match(
        self, nearest: JudgedSet, columns: Mapping[str, Any], name: str, stream: str
    ) -> Measured:
        """Measure the set nearest to the student, but with the perplexity at the match."""
        own = self._measured(nearest, stream)
        of_set = {"gen_ppl_of_set": own.gen_ppl, "gen_ppl_of_set_se": own.row["gen_ppl_se"]}
        return replace(own, row={**own.row, **of_set, **columns, "model": name})
