"""Figures of teachers, bounds and students on one language."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torch import Generator, Tensor

from idlm_ds.laboratory.best import best_law, perturbed
from idlm_ds.laboratory.bound import ordered_bound
from idlm_ds.laboratory.chain import PartlyMasked, chain_law, reveal_probabilities
from idlm_ds.laboratory.divergence import divergence, jackknife
from idlm_ds.laboratory.languages import LANGUAGES, Language
from idlm_ds.laboratory.latent import LatentChain
from idlm_ds.laboratory.options import LanguageName
from idlm_ds.laboratory.rows import Finding
from idlm_ds.laboratory.students import (
    STUDENTS,
    fitted,
    masked_process,
    sizes,
    uniform_process,
)
from idlm_ds.laboratory.teacher import ExactTeacher
from idlm_ds.laboratory.training import Training, new_network
from idlm_ds.laboratory.uniform import is_small, uniform_law
from idlm_ds.processes.base import Denoiser

Laws: TypeAlias = Mapping[int, Tensor]
"""The law of sentences (S,), by number of steps."""

ORDERED, TEACHER, SEARCHED = "bound, order known", "exact teacher", "best found without z"
FITTED, UNIFORM_TEACHER = "fitted network", "exact teacher, uniform"

MOST_STATES = 6_000
"""States of a language whose chains are searched."""

SEARCHES = (0.0, 1.0)
"""How far the starts of the search are from exact answers."""


def masked_laws(language: Language, denoiser: Denoiser, steps: Sequence[int]) -> Laws:
    """Compute the laws of masked chains without a latent."""
    process, space = masked_process(language), PartlyMasked.of(language)
    answers = space.true_words(space.answers(process, denoiser))
    reveals = [reveal_probabilities(process, count) for count in steps]
    return dict(zip(steps, chain_law(answers, reveals), strict=True))


def uniform_laws(language: Language, denoiser: Denoiser, steps: Sequence[int]) -> Laws:
    """Compute the laws of chains of the uniform family."""
    process = uniform_process(language)
    return {count: uniform_law(language, process, denoiser, count) for count in steps}


def exact_figures(name: LanguageName, steps: Sequence[int]) -> list[Finding]:
    """Measure what needs no training."""
    language = LANGUAGES[name]()
    process = masked_process(language)
    bounds = [
        Finding(language=name, line=ORDERED, steps=count, kl=ordered_bound(language, reveals))
        for count in steps
        for reveals in [reveal_probabilities(process, count)]
    ]
    laws = masked_laws(language, ExactTeacher(language), steps)
    findings = bounds + _figures(name, language, TEACHER, laws)
    if len(PartlyMasked.of(language).states) <= MOST_STATES:
        findings += _figures(name, language, SEARCHED, searched_laws(language, steps))
    if is_small(language):
        teacher = ExactTeacher(language, is_masked=False)
        findings += _figures(
            name, language, UNIFORM_TEACHER, uniform_laws(language, teacher, steps)
        )
    return findings


def searched_laws(language: Language, steps: Sequence[int], *, iterations: int = 40) -> Laws:
    """Search for the best masked chains without a latent, from several starts."""
    process, space = masked_process(language), PartlyMasked.of(language)
    exact = space.answers(process, ExactTeacher(language))
    generator = Generator().manual_seed(0)
    starts = [
        perturbed(exact, size=size, generator=generator) if size else exact for size in SEARCHES
    ]
    best = {}
    for count in steps:
        reveals = reveal_probabilities(process, count)
        laws = [best_law(space, start, reveals, iterations=iterations) for start in starts]
        best[count] = min(laws, key=lambda law: divergence(language, law))
    return best


def start_of(name: LanguageName, seed: int, is_masked: bool) -> dict[str, Tensor]:
    """Fit the network that students of a family start from."""
    language = LANGUAGES[name]()
    process = masked_process(language) if is_masked else uniform_process(language)
    return fitted(language, process, seed=seed)


def start_figures(
    name: LanguageName, seed: int, start: Mapping[str, Tensor], steps: Sequence[int]
) -> list[Finding]:
    """Measure the fitted network of the masked family."""
    language = LANGUAGES[name]()
    network = new_network(sizes(masked_process(language)), language.length, seed=seed, start=start)
    laws = masked_laws(language, network.eval(), steps)
    return _figures(name, language, FITTED, laws, seed=seed)


def student_figures(
    name: LanguageName,
    line: str,
    start: Mapping[str, Tensor],
    training: Training,
    steps: Sequence[int],
    draws: int,
) -> list[Finding]:
    """Train a student and measure it: by draws where it has a latent, else exactly."""
    language = LANGUAGES[name]()
    (kind,) = (kind for kind in STUDENTS if kind.name == line)
    student = kind.trained(language, start, training).eval()
    if not kind.latent:
        laws = (masked_laws if kind.is_masked else uniform_laws)(language, student, steps)
        return _figures(name, language, line, laws, seed=training.seed)
    space, process = PartlyMasked.of(language), masked_process(language)
    chain = LatentChain(space, process, student, kind.latent)
    findings = []
    for count in steps:
        laws_by_block = chain.block_laws(count, count=draws, seed=training.seed)
        estimate = jackknife(language, laws_by_block)
        findings.append(
            Finding(
                language=name,
                line=line,
                steps=count,
                seed=training.seed,
                kl=estimate.value,
                se=estimate.se,
                mass=laws_by_block.mean(0).sum().item(),
                how=f"{draws} draws",
            )
        )
    return findings


def _figures(
    name: str, language: Language, line: str, laws: Laws, *, seed: int | None = None
) -> list[Finding]:
    return [
        Finding(
            language=name,
            line=line,
            steps=count,
            seed=seed,
            kl=divergence(language, law),
            mass=law.sum().item(),
        )
        for count, law in laws.items()
    ]
