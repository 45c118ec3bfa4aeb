"""A tokenizer from a local Hugging Face folder."""

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer


class Tokenizer:
    """Token ids, text, and the one special token the data uses."""

    def __init__(self, folder: Path) -> None:
        """Load a folder that holds ``tokenizer.json``.

        Raises:
            ValueError: There is no such folder, or the tokenizer has no end-of-text token.
        """
        if not (folder / "tokenizer.json").is_file():
            raise ValueError(f"data.tokenizer: {folder} holds no tokenizer.json")
        self.folder = folder
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if self._tokenizer.eos_token_id is None:
            raise ValueError(f"data.tokenizer: {folder} names no eos_token")
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
