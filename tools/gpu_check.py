"""Measure one section of what only a GPU can show; ``gpu_check.sh`` runs all of them.

python tools/gpu_check.py --section student-phase --output gpu_check
python tools/gpu_check.py --summary --output gpu_check
"""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from bench import machine
from bench.gpu_sections import FULL, SECTIONS, TINY, card

from idlm_ds.cli import launch, parse_options
from idlm_ds.errors import UserError
from idlm_ds.options import Options, option

COLUMNS = {"ms": "10,.1f", "mib": "10,.0f", "tokens_per_s": "10,.0f", "mfu": "7.1%"}


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckOptions(Options):
    """What is measured, and where figures go."""

    section: (
        Literal["versions", "student-phase", "kernels", "iteration", "flash-attention"] | None
    ) = option(None, "the section to measure")
    summary: bool = option(False, "print all sections that were measured and join their files")
    tiny: bool = option(False, "at tiny sizes, on the CPU where there is no GPU")
    output: Path = option(Path("gpu_check"), "folder of the files")


def device_for(options: CheckOptions) -> torch.device:
    """Choose the GPU.

    Raises:
        UserError: There is none, and sizes are not tiny.
    """
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    if not options.tiny:
        raise UserError("no GPU; --tiny goes through every section without one")
    return torch.device("cpu")


def measure(options: CheckOptions, section: str) -> None:
    """Measure a section; each row is written as soon as it is known."""
    device, began = device_for(options), time.perf_counter()
    options.output.mkdir(parents=True, exist_ok=True)
    about = {"section": section, "tiny": options.tiny, "machine": machine.describe(device)}
    saved: dict[str, Any] = {**about, "rows": [], "problem": "ended early"}
    file = options.output / f"{section}.json"
    try:
        for row in SECTIONS[section](TINY if options.tiny else FULL, device):
            saved["rows"].append(row)
            file.write_text(json.dumps(saved, indent=1))
            print(line_of(row), flush=True)
        saved["problem"] = None
    except Exception as error:
        saved["problem"] = f"{type(error).__name__}: {(str(error).splitlines() or ['?'])[0]}"
        raise UserError(f"{section}: {saved['problem']}") from error
    finally:
        saved["seconds"] = time.perf_counter() - began
        file.write_text(json.dumps(saved, indent=1))


def line_of(row: dict[str, Any]) -> str:
    """Lay out a row; figures that it does not have are blank."""
    width = {key: int(re.match(r"\d+", form).group()) for key, form in COLUMNS.items()}
    cells = [
        format(row[key], form) if key in row else " " * width[key] for key, form in COLUMNS.items()
    ]
    return f"{row['name']:<46} {' '.join(cells)} {row.get('note', '')}".rstrip()


def summarise(options: CheckOptions) -> None:
    """Print one table of all sections and write one file, named after the card."""
    device = device_for(options)
    parts = []
    print(f"{'':<46} {'ms':>10} {'MiB':>10} {'tokens/s':>10} {'MFU':>7}")
    for section in SECTIONS:
        file = options.output / f"{section}.json"
        empty = {"section": section, "rows": [], "problem": "was not measured"}
        part = json.loads(file.read_text()) if file.exists() else empty
        parts.append(part)
        print(f"{section}: {part['problem'] or format(part['seconds'], '.0f') + ' s'}")
        for row in part["rows"]:
            print(f"  {line_of(row)}")
    name = re.sub(r"[^A-Za-z0-9]+", "_", card(device)).strip("_")
    file = options.output / f"gpu_check_{name}.json"
    joined = {"card": card(device), "machine": machine.describe(device), "sections": parts}
    file.write_text(json.dumps(joined, indent=1))
    print(f"written to {file}")


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    options = parse_options(CheckOptions, __doc__, argv)
    if options.section:
        measure(options, options.section)
    elif options.summary:
        summarise(options)
    else:
        raise UserError("choose --section NAME or --summary")


if __name__ == "__main__":
    launch(main, is_alone=True)
