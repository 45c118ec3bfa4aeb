"""Texts with gaps, filled by a saved model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from idlm_ds.console import say
from idlm_ds.errors import UserError
from idlm_ds.evaluation.completion import Completer, GappedTokens, Speed, open_completer
from idlm_ds.evaluation.draw import SingleProcess
from idlm_ds.evaluation.options import InfillOptions
from idlm_ds.evaluation.store import write_json
from idlm_ds.noise import derive_seed
from idlm_ds.provenance import git_commit

GAP = re.compile(r"___([1-9]\d*)?")


@dataclass(frozen=True, slots=True)
class Template:
    """A text with gaps, as tokens."""

    row: GappedTokens
    """Up to the last token that is known or shown."""

    gaps: Sequence[range]
    """Positions of each gap."""

    is_open: bool
    """Whether the last gap goes on to the end of text."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A template with its gaps filled."""

    text: str
    fills: list[str]
    shown: str
    """The text with its fills in brackets."""

    tokens: int
    """Number of tokens in its gaps."""


def parse(text: str, options: InfillOptions, model: Completer) -> Template:
    """Lay a text out as tokens.

    A gap without a number that ends the text goes on to the end of text or of the sequence, and so
    does a text without a gap. A space before a gap is left to what fills it: tokens begin with
    theirs, but the first one may also go on with the word before.

    Raises:
        UserError: It is longer than a sequence.
    """
    *parts, last = GAP.split(text)
    row: list[int | None] = [*model.encode("")]
    gaps = []
    for known, number in zip(parts[::2], parts[1::2], strict=True):
        row += model.tokenizer.encode([known.rstrip(" ")])[0]
        size = int(number or options.gap)
        gaps.append(range(len(row), len(row) + size))
        row += [None] * size
    row += model.tokenizer.encode([last])[0]
    is_open = not parts or (not last and not parts[-1])
    if is_open:
        start = gaps.pop().start if parts else len(row)
        gaps.append(range(start, model.length))
        row = row[:start] + [None] * (model.length - start)
    elif options.ends:
        row.append(model.tokenizer.eos_id)
    if len(row) > model.length or not all(gaps):
        raise UserError(
            f"--text: {text[:40]!r} and its gaps take {len(row)} tokens or more, a sequence has "
            f"{model.length}"
        )
    return Template(row, gaps, is_open)


def read_filled(template: Template, tokens: Sequence[int], model: Completer) -> Filled:
    """Turn a drawn sequence into text, without its opening token and the rest behind the text."""
    row = list(tokens[: len(template.row)])
    gaps = list(template.gaps)
    if template.is_open:
        start = gaps.pop().start
        written = model.until_end(row[start:])
        row = row[:start] + written
        gaps.append(range(start, len(row)))
    first = len(model.encode(""))
    fills, shown, at = [], "", first
    for gap in gaps:
        fills.append(model.decode_behind(row[first : gap.start], row[gap.start : gap.stop]))
        known = model.decode_behind(row[first:at], row[at : gap.start])
        shown += f"{known}[{fills[-1]}]"
        at = gap.stop
    shown += model.decode_behind(row[first:at], row[at:])
    (text,) = model.tokenizer.decode([row[first:]])
    return Filled(text, fills, shown, sum(map(len, gaps)))


def run_infill(options: InfillOptions) -> None:
    """Fill every text ``num_samples`` times; print the results and write those with an output.

    Raises:
        UserError: The checkpoint cannot be used, or a text does not fit.
    """
    model = open_completer(options.checkpoint, options, SingleProcess.on_any_device().device)
    templates = {text: parse(text, options, model) for text in options.texts}
    jobs = [(text, i) for text in options.texts for i in range(options.num_samples)]
    # A stream is named by the text itself, so that no other text has a part in what fills it.
    samples = [derive_seed(i, text) for text, i in jobs]
    rows = [templates[text].row for text, _ in jobs]
    drawn = model.fill(rows, samples, stream="infill", batch=options.batch)
    results = [
        read_filled(templates[text], tokens, model)
        for (text, _), tokens in zip(jobs, drawn.tokens.tolist(), strict=True)
    ]
    for filled in results:
        say(f"| {' '.join(filled.shown.split())}")
    speed = Speed(
        count=len(jobs),
        tokens=sum(filled.tokens for filled in results),
        nfe=int(drawn.evaluations.sum()),
        seconds=drawn.seconds,
    )
    latent = f", latent {model.config.latent}" if model.config.latent else ""
    say(f"{model.config.steps} steps, {model.config.label}{latent}: {speed}")
    if options.output is not None:
        origin = {
            "checkpoint": options.checkpoint,
            "sampler": model.config.label,
            "steps": model.config.steps,
            "precision": model.config.precision,
            "temperature": model.config.temperature,
            "latent": model.config.latent or None,
            "seed": options.seed,
            "commit": git_commit(),
        }
        items = [
            {"template": text, "text": filled.text, "fills": filled.fills}
            for (text, _), filled in zip(jobs, results, strict=True)
        ]
        content = {
            "generated_seqs": [filled.text for filled in results],
            "items": items,
            "provenance": origin | speed.figures(),
        }
        write_json(options.output, content)
