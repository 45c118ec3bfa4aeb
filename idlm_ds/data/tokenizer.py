"""One tokenizer, whoever made it."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from idlm_ds.data.tokenizer_files import open_vocabulary
from idlm_ds.data.vocabulary import Encoder
from idlm_ds.errors import UserError

PROBES = (
    "The quick brown fox, 1862: it's jumping over 13 lazy dogs.",
    "  two  spaces\n\nand lines\t",
    "naïve ∑ 中文 🎈 \u0301",
    "UPPER lower CamelCase http://example.org/?a=b_c",
)
"""Texts by which tokenizers with the same words are told apart."""


class Tokenizer:
    """Token ids, text, and the special tokens the data uses."""

    def __init__(self, folder: Path, key: str = "data.tokenizer") -> None:
        """Open a folder in the layout of Hugging Face, GPT-2 or BERT, or a sentencepiece model.

        Args:
            folder: The folder, or a ``.model`` file.
            key: What names it, for messages.

        Raises:
            UserError: The folder or its file is missing or damaged, or names no end-of-text token.
        """
        self.folder = folder
        self._vocabulary = open_vocabulary(folder, key)
        specials = self._vocabulary.specials
        if specials.eos is None:
            raise UserError(f"{key}: {folder} names no eos_token")
        self.eos_id = specials.eos
        self.bos_id = specials.eos if specials.bos is None else specials.bos
        self.pad_id = specials.pad
        """None where there is none; padding is then end-of-text."""
        self.mask_id = specials.mask
        """None where there is none; a masked model then adds one id."""
        self.frame = self._vocabulary.frame or (self.bos_id, self.eos_id)
        """What opens and closes a row of wrapped text; the second one also ends a document."""
        self._encoder = self._vocabulary.encoder(spells_specials=False)

    def __len__(self) -> int:
        return len(self._vocabulary)

    @cached_property
    def num_ids(self) -> int:
        """One more than the largest id; more than the number of words where some are missing."""
        return 1 + max(i for i, _ in self._vocabulary.table())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what it makes of text: its words, begin and end, how it cuts some texts.

        The same words in another layout of files, or saved by another version of a library, have
        the same fingerprint; so have those that differ in what they call padding or mask.
        """
        content = {
            "words": list(self._vocabulary.table()),
            "special": [self.bos_id, self.eos_id, *self.frame],
            "probes": self.encode(PROBES),
        }
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens but those that are named in it."""
        return self._encoder.encode(texts)

    def encoder(self) -> Encoder:
        """What a worker process needs to encode documents; no text gives it a special token."""
        return self._vocabulary.encoder(spells_specials=True)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Text of each row, special tokens kept."""
        return self._vocabulary.decode(rows)

    def save(self, folder: Path) -> None:
        """Write the files a later ``Tokenizer(folder)`` needs."""
        self._vocabulary.save(folder)
