"""The whole comparison: everything that is trained and measured, over several processes."""

import json
import math
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict
from itertools import product
from typing import Any

import torch

from idlm_ds.console import say
from idlm_ds.errors import UserError
from idlm_ds.files import write_atomic
from idlm_ds.laboratory import figure, students, table
from idlm_ds.laboratory.languages import LANGUAGES
from idlm_ds.laboratory.latent import BLOCK
from idlm_ds.laboratory.measure import exact_figures, start_figures, start_of, student_figures
from idlm_ds.laboratory.options import LaboratoryOptions, LanguageName
from idlm_ds.laboratory.rows import Finding
from idlm_ds.laboratory.students import STUDENTS, StudentKind
from idlm_ds.laboratory.training import Training
from idlm_ds.laboratory.uniform import is_small
from idlm_ds.provenance import describe_machine

ORDER = list(figure.STYLES)
"""Of lines in tables."""


def run(options: LaboratoryOptions) -> list[Finding]:
    """Train and measure everything, print tables, write JSON and plot.

    Raises:
        UserError: Options do not go together.
    """
    _check(options)
    settings = _settings(options)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        options.workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        findings = [f for part in _measured(options, pool) for f in part]
    findings.sort(key=lambda f: (options.language.index(f.language), ORDER.index(f.line), f.steps))
    for language in options.language:
        say("\n" + table.to_text(findings, language))
    say("\n" + ", ".join(f"{key} {value}" for key, value in settings.items()))
    _write(options, settings, findings)
    return findings


def _check(options: LaboratoryOptions) -> None:
    for flag, values in (
        ("--language", options.language),
        ("--steps", options.steps),
        ("--seeds", options.seeds),
    ):
        for value in values:
            if list(values).count(value) > 1:
                raise UserError(f"{flag}: {value} is given twice")
    least = 2**students.ROUNDS
    if options.updates < least:
        raise UserError(f"--updates: must be at least {least}, got {options.updates}")
    if options.draws > BLOCK and options.draws % BLOCK:
        raise UserError(f"--draws: must be a multiple of {BLOCK}, got {options.draws}")


def _measured(options: LaboratoryOptions, pool: ProcessPoolExecutor) -> Iterator[list[Finding]]:
    """Yield figures as they come: students are trained when what they start from is ready."""
    starts = {pool.submit(start_of, *start): start for start in _starts(options)}
    waiting: dict[Future[list[Finding]], str] = {}
    for name in options.language:
        waiting[pool.submit(exact_figures, name, options.steps)] = f"{name}, exact"
    for ready in as_completed(starts):
        name, seed, is_masked = starts[ready]
        start = ready.result()
        if is_masked:
            job = pool.submit(start_figures, name, seed, start, options.steps)
            waiting[job] = f"{name}, fitted network, seed {seed}"
        training = Training(updates=options.updates, seed=seed)
        settings = start, training, options.steps, options.draws
        for kind in _kinds(is_masked):
            job = pool.submit(student_figures, name, kind.name, *settings)
            waiting[job] = f"{name}, {kind.name}, seed {seed}"
    for done in as_completed(waiting):
        figures = done.result()
        at_first = min(figures, key=lambda f: f.steps)
        plural = "s" * (at_first.steps > 1)
        say(f"{waiting[done]}: {at_first.kl:.3f} nats at {at_first.steps} step{plural}")
        yield figures


def _starts(options: LaboratoryOptions) -> Iterator[tuple[LanguageName, int, bool]]:
    """List the networks that are fitted: language, seed, and whether the family is masked."""
    for name, seed in product(options.language, options.seeds):
        yield name, seed, True
        if is_small(LANGUAGES[name]()):
            yield name, seed, False


def _kinds(is_masked: bool) -> Sequence[StudentKind]:
    # The longest work first, so that no process waits for it alone.
    return [kind for kind in reversed(STUDENTS) if kind.is_masked == is_masked]


def _settings(options: LaboratoryOptions) -> dict[str, Any]:
    training = Training(updates=options.updates)
    return {
        "updates": options.updates,
        "batch": training.batch,
        "lr": training.lr,
        "fake lr": training.fake_lr,
        "seeds": list(options.seeds),
        "draws with z": options.draws,
        "entries of z": students.LATENT,
        "all-mask inputs": students.FULL_NOISE,
        "teacher slip in training": students.SLIP,
        "rounds": students.ROUNDS,
        **describe_machine("cpu", 1),
    }


def _write(
    options: LaboratoryOptions, settings: dict[str, Any], findings: Sequence[Finding]
) -> None:
    rows = [asdict(f) for f in findings]
    for row in rows:
        # JSON has no number for these.
        row |= {key: None for key in ("kl", "se") if not math.isfinite(row[key])}
    content = json.dumps({"settings": settings, "rows": rows}, indent=1, allow_nan=False) + "\n"
    write_atomic(options.output / "laboratory.json", content.encode())
    figure.draw(findings, options.output / "laboratory.png")
    say(f"written: {options.output / 'laboratory.json'}, {options.output / 'laboratory.png'}")
