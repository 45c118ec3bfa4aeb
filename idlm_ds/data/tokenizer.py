"""A tokenizer from a local Hugging Face folder."""

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer

from idlm_ds.errors import UserError


class Tokenizer:
    """Token ids, text, and the one special token the data uses."""

    def __init__(self, folder: Path, key: str = "data.tokenizer") -> None:
        """Load a folder that holds ``tokenizer.json``.

        Args:
            folder: The folder.
            key: What names it, for messages.

        Raises:
            UserError: The folder or its file is missing or damaged, or names no end-of-text token.
        """
        if not (folder / "tokenizer.json").is_file():
            raise UserError(f"{key}: {folder} holds no tokenizer.json")
        self.folder = folder
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # the Rust parser raises the base class itself
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{key}: cannot load {folder}: {reason}") from error
        if self._tokenizer.eos_token_id is None:
            raise UserError(f"{key}: {folder} names no eos_token")
        self.eos_id = int(self._tokenizer.eos_token_id)

    def __len__(self) -> int:
        return len(self._tokenizer)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        encoded = self._tokenizer.backend_tokenizer.encode_batch(
            list(texts), add_special_tokens=False
        )
        return [e.ids for e in encoded]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Text of each row, special tokens kept."""
        return self._tokenizer.batch_decode(rows, skip_special_tokens=False)

    def save(self, folder: Path) -> None:
        """Write the files a later ``Tokenizer(folder)`` needs."""
        self._tokenizer.save_pretrained(folder)
