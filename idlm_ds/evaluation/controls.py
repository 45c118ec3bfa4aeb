"""What a run ends with: its networks and the honest controls, measured under one judge."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import final

from torch import nn

from idlm_ds.build.processes import make_sampler_config
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.dist import World
from idlm_ds.engine.trio import Borrowed, Learner
from idlm_ds.evaluation.cell import Cell
from idlm_ds.evaluation.draw import SampleSet, draw_cell
from idlm_ds.evaluation.row import Row, judge_columns, sample_columns
from idlm_ds.evaluation.score import score_set
from idlm_ds.evaluation.sources import sampler_settings, token_cell
from idlm_ds.metrics.accumulate import MeanAccumulator
from idlm_ds.metrics.entropy import unigram_entropy
from idlm_ds.metrics.judge import Judge
from idlm_ds.processes.base import Process
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.tensor_types import TokenIds

HELD_OUT = "held-out"

MATCHED_STEPS = 8
"""The student's steps whose entropy the matched teacher has; the most where it takes no 8."""

CLOSE_ENOUGH = 0.005
"""Nats of entropy within which two sets count as matched."""

MAX_CORRECTIONS = 2
FIRST_GUESS = 0.85
COLDEST, HOTTEST = 0.2, 2.0

TYPICAL_SLOPE = 0.9
"""Nats of entropy a unit of temperature, before two tries have measured it."""


def match(entropy_at: Callable[[float], float], target: float, guess: float) -> float:
    """Find the temperature whose samples have an entropy.

    Entropy, in nats, rises with temperature nearly linearly here, so a secant step or two from a
    fair guess suffice.

    Returns:
        Of the temperatures tried, the one that came nearest.
    """
    entropies = {guess: entropy_at(guess)}
    last, slope = guess, TYPICAL_SLOPE
    for _ in range(MAX_CORRECTIONS):
        miss = entropies[last] - target
        guess = min(HOTTEST, max(COLDEST, last - miss / slope))
        if abs(miss) < CLOSE_ENOUGH or guess in entropies:
            break
        entropies[guess] = entropy_at(guess)
        rise = (entropies[guess] - entropies[last]) / (guess - last)
        last, slope = guess, rise if rise > 0 else TYPICAL_SLOPE
    return min(entropies, key=lambda temperature: abs(entropies[temperature] - target))


@dataclass(frozen=True, slots=True)
class LiveNetwork:
    """A network on its engine, as a source of samples."""

    name: str
    """As people read it."""

    stream: str
    """Names its random numbers and the files of its samples."""

    borrow: Callable[[], AbstractContextManager[nn.Module]]
    """Lends the network with the weights to be measured."""

    latent: int = 0
    """Entries of its latent."""


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
    stream: str | None
    """Of the network; None for text that nothing sampled."""


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class RunEvaluation:
    """Draws and scores what a run's report shows, each rank its share."""

    recipe: DistillRecipe
    process: Process
    tokenizer: Tokenizer
    judge: Judge
    world: World

    def measure(self, student: Learner, teacher: Borrowed, heldout: TokenIds) -> Iterator[Measured]:
        """Yield one measurement after the other: unseen text, student, teacher, matched teacher.

        ``heldout`` has as many windows of unseen text as each set has samples.

        Collective: every rank must draw all of them; the yielded values are the same on all.
        """
        section = self.recipe.eval
        latent = self.recipe.student.latent.size
        distilled = LiveNetwork("student", "student", lambda: averaged(student), latent)
        original = LiveNetwork("teacher", "teacher", lambda: nullcontext(teacher.module))
        matched = replace(original, name="teacher (matched)", stream="teacher_matched")
        yield self._score(None, *token_cell(HELD_OUT, heldout, self.tokenizer))
        entropies: dict[int, float] = {}
        for steps in section.steps:
            measured = self._score(distilled, *self._draw(distilled, steps))
            entropies[steps] = measured.row["entropy"]
            yield measured
        for steps in section.teacher_steps:
            yield self._score(original, *self._draw(original, steps))
        target = entropies.get(MATCHED_STEPS, entropies[section.steps[-1]])
        temperature = FIRST_GUESS
        for steps in section.matched_steps:
            temperature, cell, samples = self._draw_matched(matched, steps, target, temperature)
            yield self._score(matched, cell, samples)

    def _draw_matched(
        self, network: LiveNetwork, steps: int, target: float, guess: float
    ) -> tuple[float, Cell, SampleSet]:
        """Draw at the temperature that gives an entropy, and say which that is.

        The same random numbers serve every temperature, and whole sets are drawn: small ones miss
        the target by more than the tolerance.
        """
        tries: dict[float, tuple[Cell, SampleSet]] = {}

        def entropy_at(temperature: float) -> float:
            tries[temperature] = self._draw(network, steps, temperature)
            entropy = MeanAccumulator()
            entropy.update(unigram_entropy(tries[temperature][1].tokens))
            return entropy.compute().value

        temperature = match(entropy_at, target, guess)
        return temperature, *tries[temperature]

    def _draw(
        self, network: LiveNetwork, steps: int, temperature: float = 1.0
    ) -> tuple[Cell, SampleSet]:
        section = self.recipe.eval
        config = make_sampler_config(section, self.process)
        config = replace(config, steps=steps, temperature=temperature, latent=network.latent)
        cell = Cell(
            model=network.name,
            source=None,
            family=self.recipe.process.name,
            **sampler_settings(config),
            seed=section.seed,
            num_samples=section.num_samples,
            length=self.recipe.data.length,
            tokenizer=self.tokenizer.fingerprint[:16],
        )
        with network.borrow() as module:
            samples = draw_cell(
                cell,
                config,
                process=self.process,
                network=module,
                tokenizer=self.tokenizer,
                stream=f"{network.stream}/{steps}",
                batch=section.batch,
                ranks=self.world,
            )
        return cell, samples

    def _score(self, network: LiveNetwork | None, cell: Cell, samples: SampleSet) -> Measured:
        scores = score_set(self.judge, samples.texts, ranks=self.world)
        row = sample_columns([cell], [samples]) | judge_columns(self.judge, "published", [scores])
        return Measured(row, samples.texts, network.stream if network else None)
