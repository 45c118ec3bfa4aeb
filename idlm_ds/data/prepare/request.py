"""From what a user typed to what is meant."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from idlm_ds.data.index import HELDOUT, TRAIN
from idlm_ds.data.prepare.documents import LONGEST, TEXT, Reading, expand
from idlm_ds.data.prepare.hub import PRESETS, HubData, Preset, open_hub, preset_of
from idlm_ds.data.prepare.plan import Plan
from idlm_ds.data.prepare.sources import Corpus, Every, Files, From, Rule, Source, count_documents
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError

HUB = "hf:"
MB = 1 << 20
EVERY = 20
"""Held out of what has no custom of its own: one document in so many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What the command line says; None is for what it does not."""

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
        for one, other in (("text_field", "prompt_field"), ("heldout_every", "heldout_last")):
            if None not in (getattr(self, one), getattr(self, other)):
                raise UserError(f"{_flag(one)}: cannot be had together with {_flag(other)}")
        if self.heldout_every is not None and self.heldout_every < 2:
            raise UserError(f"--heldout-every: must be at least 2, got {self.heldout_every}")

    @property
    def preset(self) -> Preset | None:
        """The data set of the hub that is named, if one is.

        Raises:
            UserError: It is not the only source.
        """
        hub = [s for s in self.source if s.startswith(HUB) or s in PRESETS]
        if hub and len(self.source) > 1:
            raise UserError(f"--source: {hub[0]} cannot be mixed with others")
        return preset_of(hub[0].removeprefix(HUB).partition("@")[0]) if hub else None

    @property
    def reading(self) -> Reading:
        """How documents are found in it."""
        preset = self.preset
        fields = preset.fields if preset is not None else TEXT
        if self.prompt_field is not None and self.answer_field is not None:
            fields = (self.prompt_field, self.answer_field)
        elif self.text_field is not None:
            fields = (self.text_field,)
        longest = int(self.max_document_mb * MB)
        return Reading(fields=fields, by_line=self.lines, longest=longest)


def make_plan(request: Request, tokenizer: Tokenizer, counting: Callable[[], None]) -> Plan:
    """Find the sources and settle what was left open.

    Args:
        request: What the user typed.
        tokenizer: The tokenizer.
        counting: Called if all documents must be read once to know which are the last.

    Raises:
        UserError: A source cannot be found or opened, or the request contradicts itself.
    """
    preset = request.preset
    prompted = len(request.reading.fields) == 2
    custom = preset.detokenizer if preset is not None else None
    return Plan(
        corpus=_corpus(request, counting),
        tokenizer=tokenizer,
        length=request.length,
        pack=request.pack or ("pad" if prompted else "wrap"),
        framed=not request.no_frame,
        ends=not request.no_eos and not (preset is not None and preset.is_one_text),
        detokenizer=None if request.detokenizer == "none" else request.detokenizer or custom,
        separator=request.separator if prompted else None,
        workers=request.workers,
        shard_bytes=int(request.shard_mb * MB),
    )


def _corpus(request: Request, counting: Callable[[], None]) -> Corpus:
    preset, how = request.preset, request.reading
    if preset is None:
        files = Files(expand([Path(s).expanduser() for s in request.source], "--source"), how)
        return Corpus([(files, _rule(files, request, None, counting))])
    if request.lines:
        raise UserError("--lines: is for .txt files; a data set has documents")
    revision = request.source[0].partition("@")[2] or None
    train = open_hub(preset, TRAIN, revision, how, "--source")
    is_chosen = (request.heldout_every, request.heldout_last) != (None, None)
    if preset.heldout is None or is_chosen:
        return Corpus([(train, _rule(train, request, preset.heldout_last, counting))])
    heldout = open_hub(preset, preset.heldout, revision, how, "--source")
    return Corpus([(train, _All(TRAIN)), (heldout, _All(HELDOUT))])


@dataclass(frozen=True, slots=True)
class _All:
    """Every document belongs to one split."""

    name: str

    @property
    def about(self) -> dict[str, int]:
        """See ``Rule``."""
        return {"all": int(self.name == HELDOUT)}

    def split(self, ordinal: int) -> str:
        """See ``Rule``."""
        del ordinal
        return self.name


def _rule(
    source: Source, request: Request, custom: int | None, counting: Callable[[], None]
) -> Rule:
    last = custom if request.heldout_last is None else request.heldout_last
    if request.heldout_every is not None or last is None:
        return Every(request.heldout_every or EVERY)
    total = source.size if isinstance(source, HubData) else None
    if total is None:
        counting()
        total = count_documents(source)
    if not 0 < last < total:
        raise UserError(f"--heldout-last: must be between 1 and {total - 1}, got {last}")
    return From(total - last)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
