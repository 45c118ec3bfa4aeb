"""What a preparation is asked for."""

from dataclasses import dataclass
from typing import Any

from idlm_ds.data.index import Words
from idlm_ds.data.prepare.encoding import TextEncoder
from idlm_ds.data.prepare.packing import Layout, Packer, Padding, Wrapping
from idlm_ds.data.prepare.sources import Corpus
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be prepared, and how."""

    corpus: Corpus
    tokenizer: Tokenizer
    length: int
    pack: str = "wrap"
    framed: bool = True
    ends: bool = True
    detokenizer: str | None = None
    separator: str | None = None
    """What stands between a prompt and its answer; None if documents are single texts."""

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
    def layout(self) -> Layout:
        """How rows are made; wrapped text is framed as public models know it."""
        tokenizer = self.tokenizer
        wrapped = self.pack == "wrap"
        bos, eos = tokenizer.frame if wrapped else (tokenizer.bos_id, tokenizer.eos_id)
        pad = tokenizer.eos_id if tokenizer.pad_id is None else tokenizer.pad_id
        return Layout(
            length=self.length, bos=bos, eos=eos, pad=pad, framed=self.framed, ends=self.ends
        )

    @property
    def words(self) -> Words:
        """The tokenizer, as the index has it."""
        layout = self.layout
        return Words(
            sha256=self.tokenizer.fingerprint,
            size=len(self.tokenizer),
            bos=layout.bos,
            eos=layout.eos,
            pad=layout.pad,
            mask=self.tokenizer.mask_id,
        )

    @property
    def dtype(self) -> str:
        """The smallest integers that hold every token."""
        return "<u2" if self.tokenizer.num_ids <= 1 << 16 else "<u4"

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on."""
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
    def about(self) -> dict[str, Any]:
        """What was read and how, as the index has it."""
        return {
            "corpus": self.corpus.about,
            "detokenizer": self.detokenizer,
            "separator": self.separator,
        }

    @property
    def encoder(self) -> TextEncoder:
        """What turns texts into tokens."""
        return TextEncoder(self.tokenizer.encoder(), self.dtype, self.detokenizer)

    def packer(self, carry: list[int]) -> Packer:
        """What makes rows of one split."""
        if self.pack == "wrap":
            return Wrapping(self.layout, carry)
        return Padding(self.layout, prompted=self.separator is not None)
