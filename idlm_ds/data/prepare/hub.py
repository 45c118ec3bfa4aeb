"""Data sets of the Hugging Face hub, read as streams without a local copy."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import datasets
from huggingface_hub import HfApi

from idlm_ds.data.prepare.documents import TEXT, DuplicateFilter, Reading, Record, from_mapping
from idlm_ds.data.prepare.sources import OnPosition
from idlm_ds.errors import UserError

PIECE = 1 << 16
"""Minimum characters of a piece of one long text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A data set and how it is usually split and read in the literature."""

    name: str
    config: str | None = None
    files: Mapping[str, str] | None = None
    """Files of each split, for repositories that hold a loading script instead of data."""

    heldout: str | None = None
    """Name of the split that is held out."""

    heldout_last: int | None = None
    """Number of documents at the end of the training split that are held out."""

    fields: tuple[str, ...] = TEXT
    detokenizer: str | None = None
    is_one_text: bool = False
    """Whether the documents form one long text, which is read in pieces cut before blanks and
    without end-of-text tokens."""

    def location(self, split: str) -> str:
        """Describe where a split is, for messages and the index."""
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
    """Return a preset by name, or any data set as ``OWNER/NAME`` or ``OWNER/NAME:CONFIG``."""
    if spec in PRESETS:
        return PRESETS[spec]
    name, _, config = spec.partition(":")
    return Preset(name=name, config=config or None)


@final
@dataclass(frozen=True, slots=True)
class HubSource:
    """One split of a data set; positions are rows."""

    preset: Preset
    split: str
    revision: str | None
    reading: Reading
    rows: Any
    """Stream of records, a ``datasets.IterableDataset``."""

    @property
    def description(self) -> dict[str, Any]:
        """See ``DocumentSource``."""
        return {
            "hub": self.preset.location(self.split),
            "split": self.split,
            "revision": self.revision,
            "fields": list(self.reading.fields),
            "longest": self.reading.longest,
        }

    @property
    def state(self) -> str:
        """See ``DocumentSource``."""
        return repr(self.description)

    @property
    def size(self) -> int | None:
        """See ``DocumentSource``; None where the hub does not state it."""
        split_info = (self.rows.info.splits or {}).get(self.split)
        return split_info.num_examples if split_info is not None else None

    def read(self, on_position: OnPosition) -> Iterator[Record]:
        """See ``DocumentSource``."""
        duplicates = DuplicateFilter()
        try:
            for position, row in enumerate(self.rows, start=1):
                on_position(position)
                for piece in self._pieces(row):
                    yield duplicates.check(from_mapping(piece, self.reading))
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise UserError(
                f"--source: {self.preset.name} broke off ({first_line(error)}); the same command "
                "goes on from the last finished shard"
            ) from error

    def _pieces(self, row: Any) -> Iterator[Any]:
        if not self.preset.is_one_text:
            yield row
            return
        # Cut at the first blank after every PIECE characters; the blank starts the next piece.
        text = row[self.reading.fields[0]]
        start = 0
        while start < len(text):
            blank = text.find(" ", start + PIECE)
            stop = len(text) if blank < 0 else blank
            yield {self.reading.fields[0]: text[start:stop]}
            start = stop


def open_hub(
    preset: Preset, split: str, revision: str | None, reading: Reading, key: str
) -> HubSource:
    """Open one split of a data set as a stream.

    Raises:
        UserError: There is no such data set, configuration or split, or the hub cannot be reached.
    """
    # A fixed commit, so that an interrupted preparation goes on with the same data.
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
    except Exception as error:  # datasets raises a dozen types, Exception among them
        raise UserError(
            f"{key}: cannot open {preset.location(split)}, split {split}: {first_line(error)}"
        ) from error
    return HubSource(preset, split, commit, reading, rows)


def _commit(name: str, revision: str | None) -> str | None:
    """Return the commit a revision points to now; offline, the revision itself."""
    try:
        return HfApi().dataset_info(name, revision=revision).sha
    except Exception:  # offline, or a folder on disk; opening it reports real errors
        return revision


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, at most 120 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
