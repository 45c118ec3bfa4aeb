"""Parse and validate the options of prepare_data.py, and settle what they leave open."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idlm_ds.data.index import TRAIN, Index, TokenizerRecord
from idlm_ds.data.prepare.documents import LONGEST, TEXT, Reading, expand
from idlm_ds.data.prepare.encoding import TextEncoder
from idlm_ds.data.prepare.hub import PRESETS, HubSource, Preset, open_hub, preset_of
from idlm_ds.data.prepare.packing import Packer, PadPacker, RowLayout, WrapPacker
from idlm_ds.data.prepare.sources import (
    Corpus,
    DocumentSource,
    FileSource,
    SplitRule,
    count_documents,
)
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError

HUB = "hf:"
MB = 1 << 20
DEFAULT_STRIDE = 20
"""One document in this many is held out, unless the source has a rule of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareOptions:
    """Options of the command line; None where the user gave none."""

    source: Sequence[str]
    """``hf:OWNER/NAME[:CONFIG][@REVISION]``, the name of a preset, or files and folders."""

    length: int = 1024
    pack: str | None = None
    workers: int = 1
    text_field: str | None = None
    prompt_field: str | None = None
    answer_field: str | None = None
    separator: str = "\n"
    detokenizer: str | None = None
    lines: bool = False
    heldout_every: int | None = None
    heldout_last: int | None = None
    no_frame: bool = False
    no_eos: bool = False
    shard_mb: float = 64
    max_document_mb: float = LONGEST / MB

    def __post_init__(self) -> None:
        for name in ("workers", "shard_mb", "max_document_mb"):
            if not getattr(self, name) > 0:
                raise UserError(f"{_flag(name)}: must be above 0, got {getattr(self, name)}")
        if (self.prompt_field is None) != (self.answer_field is None):
            raise UserError("--prompt-field: goes together with --answer-field")
        for name, other in (("text_field", "prompt_field"), ("heldout_every", "heldout_last")):
            if None not in (getattr(self, name), getattr(self, other)):
                raise UserError(f"{_flag(name)}: cannot be had together with {_flag(other)}")
        if self.heldout_every is not None and self.heldout_every < 2:
            raise UserError(f"--heldout-every: must be at least 2, got {self.heldout_every}")

    @property
    def preset(self) -> Preset | None:
        """The data set of the hub; None if the sources are files.

        Raises:
            UserError: It is not the only source.
        """
        on_hub = [s for s in self.source if s.startswith(HUB) or s in PRESETS]
        if on_hub and len(self.source) > 1:
            raise UserError(f"--source: {on_hub[0]} cannot be mixed with others")
        return preset_of(on_hub[0].removeprefix(HUB).partition("@")[0]) if on_hub else None

    @property
    def reading(self) -> Reading:
        """Options for reading documents."""
        preset = self.preset
        fields = preset.fields if preset is not None else TEXT
        if self.prompt_field is not None and self.answer_field is not None:
            fields = (self.prompt_field, self.answer_field)
        elif self.text_field is not None:
            fields = (self.text_field,)
        longest = int(self.max_document_mb * MB)
        return Reading(fields=fields, by_line=self.lines, longest=longest)


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparationPlan:
    """Complete settings of a preparation."""

    corpus: Corpus
    tokenizer: Tokenizer
    length: int
    pack: str = "wrap"
    framed: bool = True
    ends: bool = True
    detokenizer: str | None = None
    separator: str | None = None
    """Text between a prompt and its answer; None if documents are single texts."""

    workers: int = 1
    shard_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        layout = self.layout
        least = 1 + 2 * self.framed if self.pack == "wrap" else 1 + self.framed + self.ends
        if self.separator is not None and self.pack == "wrap":
            raise UserError("--pack: prompts and answers stand one pair a row; use pad")
        if layout.length < least:
            raise UserError(f"--length: must be at least {least} here, got {layout.length}")

    @property
    def layout(self) -> RowLayout:
        """Layout of rows; wrapped text has the frame that public models were trained on."""
        tokenizer = self.tokenizer
        wrapped = self.pack == "wrap"
        bos, eos = tokenizer.frame if wrapped else (tokenizer.bos_id, tokenizer.eos_id)
        pad = tokenizer.eos_id if tokenizer.pad_id is None else tokenizer.pad_id
        return RowLayout(
            length=self.length, bos=bos, eos=eos, pad=pad, framed=self.framed, ends=self.ends
        )

    @property
    def dtype(self) -> str:
        """Smallest integer type that holds every token."""
        return "<u2" if self.tokenizer.num_ids <= 1 << 16 else "<u4"

    @property
    def settings(self) -> dict[str, Any]:
        """Everything the result depends on, for the journal."""
        return {
            "source": self.corpus.state,
            "tokenizer": self.tokenizer.fingerprint,
            "length": self.length,
            "pack": self.pack,
            "frame": self.framed,
            "end-of-text": self.ends,
            "detokenizer": self.detokenizer,
            "separator": self.separator,
            "shard size": self.shard_bytes,
        }

    @property
    def encoder(self) -> TextEncoder:
        """Encoder of texts."""
        return TextEncoder(self.tokenizer.encoder(), self.dtype, self.detokenizer)

    def packer(self, carry: list[int]) -> Packer:
        """Make the packer of one split, starting with the tokens carried over."""
        if self.pack == "wrap":
            return WrapPacker(self.layout, carry)
        return PadPacker(self.layout, prompted=self.separator is not None)

    def index(self, **results: Any) -> Index:
        """Describe prepared data by this plan and the results of preparing it."""
        tokenizer, layout = self.tokenizer, self.layout
        return Index(
            length=self.length,
            pack=self.pack,
            framed=self.framed,
            ends=self.ends,
            dtype=self.dtype,
            tokenizer=TokenizerRecord(
                sha256=tokenizer.fingerprint,
                size=len(tokenizer),
                bos=layout.bos,
                eos=layout.eos,
                pad=layout.pad,
                mask=tokenizer.mask_id,
            ),
            source={
                "corpus": self.corpus.description,
                "detokenizer": self.detokenizer,
                "separator": self.separator,
            },
            **{"documents": {}, **results},
        )


def make_plan(
    options: PrepareOptions, tokenizer: Tokenizer, on_count: Callable[[], None]
) -> PreparationPlan:
    """Open the sources and fill in defaults.

    ``on_count`` is called before all documents are read once to find the last ones.

    Raises:
        UserError: A source cannot be found or opened, or options contradict each other.
    """
    preset = options.preset
    prompted = len(options.reading.fields) == 2
    detokenizer = options.detokenizer or (preset.detokenizer if preset is not None else None)
    return PreparationPlan(
        corpus=_corpus(options, on_count),
        tokenizer=tokenizer,
        length=options.length,
        pack=options.pack or ("pad" if prompted else "wrap"),
        framed=not options.no_frame,
        ends=not options.no_eos and not (preset is not None and preset.is_one_text),
        detokenizer=None if options.detokenizer == "none" else detokenizer,
        separator=options.separator if prompted else None,
        workers=options.workers,
        shard_bytes=int(options.shard_mb * MB),
    )


def _corpus(options: PrepareOptions, on_count: Callable[[], None]) -> Corpus:
    preset, reading = options.preset, options.reading
    if preset is None:
        paths = expand([Path(s).expanduser() for s in options.source], "--source")
        files = FileSource(paths, reading)
        return Corpus([(files, _rule(files, options, None, on_count))])
    if options.lines:
        raise UserError("--lines: is for .txt files; a data set has documents")
    revision = options.source[0].partition("@")[2] or None
    train = open_hub(preset, TRAIN, revision, reading, "--source")
    # A data set with a held-out split of its own uses it, unless the user chose another rule.
    has_rule = (options.heldout_every, options.heldout_last) != (None, None)
    if preset.heldout is None or has_rule:
        return Corpus([(train, _rule(train, options, preset.heldout_last, on_count))])
    heldout = open_hub(preset, preset.heldout, revision, reading, "--source")
    return Corpus([(train, SplitRule("all", 0)), (heldout, SplitRule("all", 1))])


def _rule(
    source: DocumentSource,
    options: PrepareOptions,
    preset_last: int | None,
    on_count: Callable[[], None],
) -> SplitRule:
    last = preset_last if options.heldout_last is None else options.heldout_last
    if options.heldout_every is not None or last is None:
        return SplitRule("every", options.heldout_every or DEFAULT_STRIDE)
    # The last documents are known by their number only if the total is.
    total = source.size if isinstance(source, HubSource) else None
    if total is None:
        on_count()
        total = count_documents(source)
    if not 0 < last < total:
        raise UserError(f"--heldout-last: must be between 1 and {total - 1}, got {last}")
    return SplitRule("from", total - last)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
