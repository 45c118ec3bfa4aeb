"""Data sets of the hub, read as a stream; nothing of them is kept."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import datasets
from huggingface_hub import HfApi

from idlm_ds.data.prepare.documents import TEXT, Distinct, Reading, Record, from_mapping
from idlm_ds.data.prepare.sources import Moved
from idlm_ds.errors import UserError

PIECE = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A corpus of the literature, as it is usually taken."""

    name: str
    config: str | None = None
    files: Mapping[str, str] | None = None
    """Where each split is, for repositories that hold a program instead of data."""

    heldout: str | None = None
    """Split that is held out whole."""

    heldout_last: int | None = None
    """Documents at the end of the training split that are held out."""

    fields: tuple[str, ...] = TEXT
    detokenizer: str | None = None
    is_one_text: bool = False
    """Whether its few documents are one long text, which is read in pieces cut before blanks and
    has no ends of documents."""

    def place(self, split: str) -> str:
        """Where a split is, for people."""
        if self.files is not None:
            return self.files[split]
        return self.name if self.config is None else f"{self.name}:{self.config}"


PRESETS = {
    "openwebtext": Preset(name="Skylion007/openwebtext", heldout_last=100_000),
    "lm1b": Preset(
        name="parquet",
        files={
            split: "hf://datasets/billion-word-benchmark/lm1b@~parquet"
            f"/plain_text/{split}/*.parquet"
            for split in ("train", "test")
        },
        heldout="test",
        detokenizer="lm1b",
    ),
    "text8": Preset(name="afmck/text8", heldout="test", is_one_text=True),
    "wikitext": Preset(
        name="Salesforce/wikitext", config="wikitext-103-raw-v1", heldout="validation"
    ),
    "tinygsm": Preset(name="TinyGSM/TinyGSM", heldout_last=10_000, fields=("question", "code")),
}


def preset_of(spec: str) -> Preset:
    """A preset by its name, or any data set as ``OWNER/NAME`` or ``OWNER/NAME:CONFIG``."""
    if spec in PRESETS:
        return PRESETS[spec]
    name, _, config = spec.partition(":")
    return Preset(name=name, config=config or None)


@final
@dataclass(frozen=True, slots=True)
class HubData:
    """One split of a data set; position is counted in its rows."""

    preset: Preset
    split: str
    revision: str | None
    how: Reading
    rows: Any
    """The stream, a ``datasets.IterableDataset``."""

    @property
    def about(self) -> dict[str, Any]:
        """See ``Source``."""
        return {
            "hub": self.preset.place(self.split),
            "split": self.split,
            "revision": self.revision,
            "fields": list(self.how.fields),
            "longest": self.how.longest,
        }

    @property
    def state(self) -> str:
        """See ``Source``."""
        return repr(self.about)

    @property
    def size(self) -> int | None:
        """See ``Source``; None where the hub does not tell."""
        told = (self.rows.info.splits or {}).get(self.split)
        return told.num_examples if told is not None else None

    def read(self, moved: Moved) -> Iterator[Record]:
        """See ``Source``."""
        distinct = Distinct()
        try:
            for at, row in enumerate(self.rows, start=1):
                moved(at)
                for piece in self._pieces(row):
                    yield distinct.take(from_mapping(piece, self.how))
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise UserError(
                f"--source: {self.preset.name} broke off ({first_line(error)}); the same command "
                "goes on from the last finished shard"
            ) from error

    def _pieces(self, row: Any) -> Iterator[Any]:
        if not self.preset.is_one_text:
            yield row
            return
        text = row[self.how.fields[0]]
        start = 0
        while start < len(text):
            blank = text.find(" ", start + PIECE)
            stop = len(text) if blank < 0 else blank
            yield {self.how.fields[0]: text[start:stop]}
            start = stop


def open_hub(preset: Preset, split: str, revision: str | None, how: Reading, key: str) -> HubData:
    """Find one split of a data set.

    Raises:
        UserError: There is no such data set, configuration or split, or the hub cannot be reached.
    """
    commit = revision if preset.files is not None else _commit(preset.name, revision)
    try:
        rows = datasets.load_dataset(
            preset.name,
            preset.config,
            data_files=None if preset.files is None else dict(preset.files),
            split=split,
            streaming=True,
            revision=commit,
        )
    except Exception as error:  # it raises a dozen kinds, some of them the base class
        raise UserError(
            f"{key}: cannot open {preset.place(split)}, split {split}: {first_line(error)}"
        ) from error
    return HubData(preset, split, commit, how, rows)


def _commit(name: str, revision: str | None) -> str | None:
    """The commit a revision stands for now; without a hub, the revision."""
    try:
        return HfApi().dataset_info(name, revision=revision).sha
    except Exception:  # offline, or a folder on disk; opening it will say what is wrong
        return revision


def first_line(error: Exception) -> str:
    """What an error says, in one short line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
