"""Samples and scores of a run's report, kept so that a report that was killed goes on with them.

A file states everything that its content depends on, and the hash of its content. What does not
state exactly what is wanted now, or is damaged, is computed again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from idlm_ds.console import say
from idlm_ds.engine.dist import World
from idlm_ds.evaluation.cell import Cell
from idlm_ds.evaluation.draw import SampleSet
from idlm_ds.evaluation.score import Scores
from idlm_ds.evaluation.store import write_json

PlainValues: TypeAlias = Mapping[str, Any]

FORMAT = 1
"""Of the files; another one is not read."""


@dataclass(frozen=True, slots=True)
class KeptSets:
    """The folder ``evaluation`` of a run."""

    folder: Path
    about: PlainValues
    """What all sets depend on beside what is said of each; plain values of JSON."""

    world: World

    def count(self) -> int:
        """Count the sets of samples that are kept."""
        return sum(1 for _ in (self.folder / "samples").glob("*.json"))

    def samples(self, cell: Cell, stream: str, draw: Callable[[], SampleSet]) -> SampleSet:
        """Return a set of samples that is kept, or draw and keep it.

        Args:
            cell: The settings, with the fingerprint of the weights as ``source``.
            stream: Name of the random numbers.
            draw: Collective: called on every rank, or on none.

        Collective: every rank must call; all get the same.
        """
        wanted = {**self.about, "cell": asdict(cell), "stream": stream}
        path = self._path("samples", cell, wanted)
        content = self._read(path, wanted)
        if content is None:
            drawn = draw()
            content = {
                "tokens": drawn.tokens.tolist(),
                "texts": list(drawn.texts),
                "nfe": drawn.nfe,
                "seconds": drawn.seconds,
                "machine": dict(drawn.machine),
            }
            self._write(path, wanted, content)
            return drawn
        tokens = torch.tensor(content["tokens"], dtype=torch.long)
        return SampleSet(tokens=tokens, **{k: v for k, v in content.items() if k != "tokens"})

    def scores(
        self, cell: Cell, texts: Sequence[str], judge: Sequence[Any], score: Callable[[], Scores]
    ) -> Scores:
        """Return the scores of texts that are kept, or compute and keep them.

        Args:
            cell: The settings of the set, which name the file.
            texts: What is scored.
            judge: All that determines the scores beside the texts, in plain values.
            score: Collective: called on every rank, or on none.

        Collective: every rank must call; all get the same.
        """
        wanted = {**self.about, "judge": list(judge), "texts": _digest(list(texts))}
        path = self._path("scores", cell, wanted)
        content = self._read(path, wanted)
        if content is None:
            scores = score()
            content = {"nats": scores.nats.tolist(), "tokens": scores.tokens.tolist()}
            self._write(path, wanted, content)
            return scores
        nats = torch.tensor(content["nats"], dtype=torch.float64)
        return Scores(nats, torch.tensor(content["tokens"], dtype=torch.long))

    def _path(self, kind: str, cell: Cell, wanted: PlainValues) -> Path:
        return self.folder / kind / f"{cell.key}-{_digest(wanted)[:12]}.json"

    def _read(self, path: Path, wanted: PlainValues) -> PlainValues | None:
        """Return what the first rank finds, or None; says why a file that is there is not used."""
        content = None
        if self.world.is_first and path.exists():
            try:
                content = _checked(path, wanted)
            except (OSError, ValueError, RecursionError) as error:
                say(f"evaluation: {path} is computed again: {' '.join(str(error).split())[:100]}")
        agreed: PlainValues | None = self.world.agree(content)
        return agreed

    def _write(self, path: Path, wanted: PlainValues, content: PlainValues) -> None:
        """Keep something; where that is impossible, a report that is killed has to begin anew."""
        if not self.world.is_first:
            return
        whole = {"format": FORMAT, "of": wanted, "sha256": _digest(content), "content": content}
        try:
            write_json(path, whole)
        except ValueError as error:
            say(f"evaluation: not kept, and the report goes on: {error}")


def _checked(path: Path, wanted: PlainValues) -> PlainValues:
    """Read a file that states what is wanted.

    Raises:
        ValueError: It does not, or is damaged.
    """
    whole = json.loads(path.read_text("utf-8"))
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise ValueError(f"not of format {FORMAT}")
    if whole.get("of") != json.loads(json.dumps(wanted)):
        raise ValueError("it belongs to other settings")
    content = whole.get("content")
    if not isinstance(content, dict) or _digest(content) != whole.get("sha256"):
        raise ValueError("damaged")
    return content


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
