"""Sets of samples and their scores on disk; what is there is never computed again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from idlm_ds.errors import UserError
from idlm_ds.evaluation.cell import Cell
from idlm_ds.evaluation.draw import SampleSet
from idlm_ds.files import write_atomic


class Store:
    """The folder of an evaluation: ``samples/``, ``scores/`` and the tables over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def samples(self, cell: Cell) -> Path:
        """Path of a cell's samples, whether they have been drawn or not."""
        return self.folder / "samples" / f"{cell.key}.json"

    def score(self, cell: Cell, metric: str) -> Path:
        """Path of a metric's scores of a cell, whether they have been computed or not."""
        return self.folder / "scores" / f"{cell.key}.{metric}.json"

    def write_samples(self, cell: Cell, samples: SampleSet) -> None:
        """Write a cell's samples; see ``write_json``."""
        content = {
            "cell": asdict(cell),
            "nfe": samples.nfe,
            "seconds": samples.seconds,
            "dtypes": [] if cell.precision is None else [cell.precision],
            "machine": dict(samples.machine),
            "generated_seqs": list(samples.texts),
            "tokens": samples.tokens.tolist(),
        }
        write_json(self.samples(cell), content)

    def read_samples(self, cell: Cell) -> SampleSet:
        """Read the samples of a cell that has been drawn.

        Raises:
            UserError: The file is damaged.
        """
        path = self.samples(cell)
        content = read_json(path)
        try:
            return SampleSet(
                tokens=torch.tensor(content["tokens"], dtype=torch.long),
                texts=content["generated_seqs"],
                nfe=content["nfe"],
                seconds=content["seconds"],
                machine=content["machine"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: damaged ({error}); delete it to draw it again") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file, whole or not at all.

    Raises:
        UserError: It cannot be written.
        ValueError: A number is not finite, which JSON cannot hold.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all.

    Raises:
        UserError: It cannot be written.
    """
    try:
        write_atomic(path, text.encode())
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


def missing_files(paths: Sequence[Path]) -> list[int]:
    """List the indices of files that do not exist."""
    return [i for i, path in enumerate(paths) if not path.exists()]
