"""Sets of samples on disk, each named by everything it depends on.

An evaluation is a grid of cells. A cell that is on disk is never drawn again; what a cell depends
on is in its name, so one of other settings is another file.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from idlm_ds.errors import UserError
from idlm_ds.files import write_atomic


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """How one set of sequences comes about."""

    model: str
    """As the user named it."""

    source: str
    """Fingerprint of what the sequences are made from."""

    family: str | None
    """Diffusion family; None for text that no diffusion model wrote."""

    sampler: str | None
    """With its tail, as printed; None for text that nothing sampled."""

    steps: int | None
    precision: str | None
    temperature: float
    nucleus: float
    seed: int
    num_samples: int
    length: int
    tokenizer: str
    """Fingerprint of the tokenizer."""

    @property
    def key(self) -> str:
        """File name: readable, and a hash of every setting but the model's name."""
        settings = asdict(self)
        del settings["model"]
        text = json.dumps(settings, sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
        told = [self.model.rstrip("/").rpartition("/")[2], self.sampler, self.steps, self.precision]
        words = "-".join(str(word) for word in told if word is not None)
        return f"{re.sub(r'[^A-Za-z0-9._+-]+', '_', words)[:60]}-s{self.seed}-{digest}"


def by_setting(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells that differ in their seed only, together."""
    settings: dict[Cell, list[Cell]] = {}
    for cell in cells:
        settings.setdefault(replace(cell, seed=0), []).append(cell)
    return list(settings.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """A cell's sequences, and what they cost."""

    tokens: Tensor
    """(num_samples, length) ids."""

    texts: Sequence[str]
    nfe: float | None
    """Network calls a sequence; None where nothing was sampled."""

    seconds: float | None
    """Wall time of drawing them all."""

    dtypes: Sequence[str]
    """Precisions of the random numbers they were drawn with."""

    machine: Mapping[str, Any]
    """Versions, device, number of ranks."""


class Store:
    """The folder of an evaluation: ``samples/``, ``scores/`` and the tables over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def samples(self, cell: Cell) -> Path:
        """Where a cell's sequences are, or will be."""
        return self.folder / "samples" / f"{cell.key}.json"

    def score(self, cell: Cell, metric: str) -> Path:
        """Where what a metric says of a cell is, or will be."""
        return self.folder / "scores" / f"{cell.key}.{metric}.json"

    def write_samples(self, cell: Cell, drawn: Drawn) -> None:
        """Keep a cell, whole or not at all."""
        content = {
            "cell": asdict(cell),
            "nfe": drawn.nfe,
            "seconds": drawn.seconds,
            "dtypes": list(drawn.dtypes),
            "machine": dict(drawn.machine),
            "generated_seqs": list(drawn.texts),
            "tokens": drawn.tokens.tolist(),
        }
        write_json(self.samples(cell), content)

    def read_samples(self, cell: Cell) -> Drawn:
        """Read a cell that is there.

        Raises:
            UserError: The file is damaged.
        """
        path = self.samples(cell)
        content = read_json(path)
        try:
            return Drawn(
                tokens=torch.tensor(content["tokens"], dtype=torch.long),
                texts=content["generated_seqs"],
                nfe=content["nfe"],
                seconds=content["seconds"],
                dtypes=content["dtypes"],
                machine=content["machine"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: damaged ({error}); delete it to draw it again") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    try:
        write_atomic(path, (text + "\n").encode())
    except OSError as error:
        raise UserError(f"--output: cannot write {path}: {error.strerror}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: The file is missing or holds something else.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object")
    return content
