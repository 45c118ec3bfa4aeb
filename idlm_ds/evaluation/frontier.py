"""GenPPL against entropy over a sweep of temperatures: teacher, student, real text, a control."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from idlm_ds.build.judges import load_judge
from idlm_ds.build.locate import locate
from idlm_ds.console import say
from idlm_ds.data.corpus import read_corpus, split_documents
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.data.windows import in_order, pack
from idlm_ds.engine.dist import World
from idlm_ds.errors import UserError
from idlm_ds.evaluation.genppl import evaluate, settings_of
from idlm_ds.evaluation.grid import GenPplOptions, Source, find_source, text_cell
from idlm_ds.evaluation.store import Cell, Drawn
from idlm_ds.evaluation.sweep import Curve, Point, draw_sweep
from idlm_ds.evaluation.table import Row, to_markdown, to_text, write_results
from idlm_ds.files import write_atomic

REAL = "real text"
CONTROL = "control: a phrase, repeated"

GUIDE = """\
Each curve is one model at one number of steps; its points are temperatures. Lower and further right
is better. Compare curves at equal entropy: sharpening a model moves it along its own curve, towards
low GenPPL and low entropy, and is no progress.

The control writes no text at all: it repeats the first words of a real passage. Where it undercuts
real text in GenPPL, GenPPL alone says nothing; entropy gives it away.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontierOptions:
    """Two models, and the text they are held against."""

    teacher: str
    student: str
    teacher_steps: Sequence[int]
    student_steps: Sequence[int]
    corpus: str
    heldout_every: int

    periods: Sequence[int]
    """Tokens of the control's phrases."""

    samples: GenPplOptions
    """Everything else; its checkpoints and steps are not looked at."""

    def __post_init__(self) -> None:
        for option, values in {
            "--teacher-steps": self.teacher_steps,
            "--student-steps": self.student_steps,
            "--periods": self.periods,
        }.items():
            if wrong := [value for value in values if value < 1]:
                raise UserError(f"{option}: must be at least 1, got {wrong[0]}")


def run_frontier(options: FrontierOptions, world: World) -> None:
    """Draw, score and plot.

    Collective: every rank must call.

    Raises:
        UserError: A file, a name or a combination of options cannot be used.
    """
    roles = {options.teacher: options.teacher_steps, options.student: options.student_steps}
    sources = [
        find_source(spec, replace(options.samples, checkpoints=[spec], steps=steps))
        for spec, steps in roles.items()
    ]
    judges = [load_judge(spec, world.device, "--judge") for spec in options.samples.judges]
    rows = evaluate(sources, _texts(options, sources[0]), judges, options.samples, world)
    if world.is_first:
        folder = options.samples.output
        write_results(folder, rows, settings_of(options.samples, world))
        draw_sweep(_curves(rows, options), folder / "frontier.png")
        page = f"# Frontier\n\n![GenPPL against entropy](frontier.png)\n\n{GUIDE}\n"
        write_atomic(folder / "frontier.md", (page + to_markdown(rows) + "\n").encode())
        say(to_text(rows))
        say(f"written to {folder}")


def _texts(options: FrontierOptions, source: Source) -> list[tuple[Cell, Drawn]]:
    words, length = source.opened.tokenizer, source.opened.length
    documents = read_corpus(locate(options.corpus, "--corpus"))
    _, heldout = split_documents(documents, heldout_every=options.heldout_every)
    windows = in_order(pack(heldout, words), length, options.samples.num_samples)
    real = torch.from_numpy(windows)
    texts = [_text(REAL, real, words)]
    for period in options.periods:
        tokens = real[:, torch.arange(length) % period]
        texts.append(_text(f"{CONTROL} every {period} tokens", tokens, words))
    return texts


def _text(name: str, tokens: Tensor, tokenizer: Tokenizer) -> tuple[Cell, Drawn]:
    return text_cell(name, tokenizer.decode(tokens.tolist()), tokens, tokenizer)


def _curves(rows: Sequence[Row], options: FrontierOptions) -> list[Curve]:
    curves: dict[tuple[str, str, str], list[Point]] = {}
    for row in rows:
        role, label = _names(row, options)
        errors = row["entropy_se"] or 0.0, row["gen_ppl_se"] or 0.0
        point = Point(row["entropy"], errors[0], row["gen_ppl"], errors[1], label)
        kind = role.partition(",")[0].partition(":")[0]
        curves.setdefault((row["judge"], kind, role), []).append(point)
    return [Curve(judge, kind, name, points) for (judge, kind, name), points in curves.items()]


def _names(row: Row, options: FrontierOptions) -> tuple[str, str]:
    """The curve a row belongs to, and what its point is called."""
    if row["model"] == REAL:
        return REAL, ""
    if row["model"].startswith(CONTROL):
        return CONTROL, row["model"].removeprefix(f"{CONTROL} every ").removesuffix(" tokens")
    role = "teacher" if row["model"] == options.teacher else "student"
    cut = "" if row["nucleus"] == 1 else f", top-p {row['nucleus']:g}"
    return f"{role}, {row['steps']} steps{cut}", f"{row['temperature']:g}"
