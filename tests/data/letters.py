"""A tokenizer with a token a letter; it takes no time to import in another process."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EOS, BOS, PAD = 0, 1, 2
LETTERS = "abcdefghijklmnopqrstuvwxyz \n"


class LetterEncoder:
    """A token a letter; whatever is no letter has no token."""

    is_wordwise = True

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[LETTERS.index(c) + 3 for c in text if c in LETTERS] for text in texts]


@dataclass
class LetterTokenizer:
    """What a plan needs of a tokenizer."""

    name: str = "letters"
    size: int = 40
    bos_id: int = BOS
    eos_id: int = EOS
    pad_id: int | None = PAD
    mask_id: int | None = None
    folder: Path = Path("letters")
    frame: tuple[int, int] = (BOS, EOS)

    def __len__(self) -> int:
        return self.size

    @property
    def num_ids(self) -> int:
        return self.size

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    def encoder(self) -> LetterEncoder:
        return LetterEncoder()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return LetterEncoder().encode(texts)

    def save(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
