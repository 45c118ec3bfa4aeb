"""Reads files in a process where everything but reading them is noticed.

python -m tests.checkpoints.under_audit FOLDER [--as-usual]

Prints, as JSON, how each file was taken and every event of the interpreter that reading does not
need. With ``--as-usual`` the pickles inside are loaded as PyTorch would, to show what they do.
"""

import json
import pickle
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from idlm_ds.checkpoints.formats.base import format_of
from idlm_ds.checkpoints.formats.public import detect, read_public
from idlm_ds.errors import UserError
from idlm_ds.registry.layouts import LAYOUTS


def take(path: Path) -> str:
    """Open a file in every way there is, and read a bit of every tensor."""
    try:
        detect(path)
        model = read_public(path)
        for name in model.weights.names():
            shape = model.weights.shape(name)
            assert shape is not None
            model.weights.read(name, shape, 0, 1)
    except UserError as error:
        return f"{type(error).__name__}: {error}"
    return "read"


def load_as_usual(path: Path) -> str:
    file = path / "pytorch_model.bin" if path.is_dir() else path
    with zipfile.ZipFile(file) as archive:
        stream = next(archive.read(n) for n in archive.namelist() if n.endswith("data.pkl"))
    loader = type(
        "Loader", (pickle.Unpickler,), {"persistent_load": lambda self, _: torch.zeros(4)}
    )
    with (path.parent / "stream").open("wb") as target:
        target.write(stream)
    try:
        with (path.parent / "stream").open("rb") as source:
            loader(source).load()
    except Exception as error:
        return type(error).__name__
    return "loaded"


def main(folder: Path, *, as_usual: bool) -> None:
    warnings.simplefilter("ignore")
    paths = sorted((folder / "files").iterdir())
    for layout in LAYOUTS:
        format_of(layout)
    for path in sorted((folder / "warm").iterdir()):
        take(path)

    events: list[str] = []

    def notice(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            is_inside = isinstance(path, int) or str(path).startswith(str(folder))
            if is_inside and mode in ("r", "rb", None) and flags & 3 == 0:
                return
        events.append(f"{event} {ascii(arguments)[:120]}")

    sys.addaudithook(notice)
    how = load_as_usual if as_usual else take
    taken = {}
    for path in paths:
        taken[path.name] = how(path)
    found, events = events, []
    sys.stdout.write(json.dumps({"taken": taken, "events": found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), as_usual="--as-usual" in sys.argv)
