"""Say what is in a folder of prepared data, and whether it still is.

python tools/inspect_data.py data/mine
python tools/inspect_data.py data/mine --verify --samples 5
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from idlm_ds.cli import Parser, launch
from idlm_ds.errors import UserError

if TYPE_CHECKING:
    from idlm_ds.data.index import Index

KEY = "inspect_data"
LOOKED_AT = 20_000
"""Rows of which lengths are counted."""


def facts(index: "Index") -> Iterator[tuple[str, str]]:
    """Everything the index says, as label and text."""
    words, told = index.words, index.documents
    mask = "none" if words.mask is None else words.mask
    yield "tokenizer", f"{words.sha256[:12]}, {words.size} words"
    yield "special", f"bos {words.bos}, eos {words.eos}, pad {words.pad}, mask {mask}"
    frame = "framed" if index.framed else "not framed"
    yield "packing", f"{index.pack}, {frame}{', documents end with eos' if index.ends else ''}"
    for member in index.source["corpus"]:
        names = [f["name"] for f in member.get("files", [])]
        yield "source", member.get("hub") or f"{len(names)} files: {', '.join(names[:5])}"
    dropped = sum(told["dropped"].values())
    yield "documents", f"{told['read']:,} read = {told['kept']:,} kept + {dropped:,} dropped"
    yield "", f"{told['repaired']:,} of them repaired, {told['truncated']:,} cut at a row's end"
    for reason, count in told["dropped"].items():
        yield "dropped", f"{count:,} {reason}"
    for file, reason in index.damaged.items():
        yield "damaged", f"{file}: {reason}"


def lengths(index: "Index", folder: Path) -> np.ndarray:
    """Tokens of documents, as the first rows of each training shard tell."""
    from idlm_ds.data.prepared import span_array, token_array

    shards = index.splits["train"]
    found = [np.empty(0, np.int64)]
    for shard in shards:
        some = slice(max(1, LOOKED_AT // len(shards)))
        spans = span_array(folder, shard)
        if spans is not None:
            found.append(spans[some, 1])
        elif index.ends:
            rows = token_array(index, folder, shard)[some]
            stream = (rows[:, 1:-1] if index.framed else rows).reshape(-1)
            found.append(np.diff(np.flatnonzero(stream == index.words.eos)))
    return np.concatenate(found)


def histogram(values: np.ndarray) -> Iterator[str]:
    """Bars over powers of two."""
    bins = np.bincount(np.log2(np.maximum(values, 1)).astype(int)) if len(values) else []
    for power, count in enumerate(bins):
        if count:
            bar = "#" * int(np.ceil(40 * count / max(bins)))
            yield f"{2**power:>9,} - {2 ** (power + 1) - 1:<9,} {count:>9,} {bar}"


def samples(index: "Index", folder: Path, count: int) -> Iterator[str]:
    """Decode rows spread over the training data."""
    from idlm_ds.data.index import TOKENIZER
    from idlm_ds.data.prepared import training_rows
    from idlm_ds.data.tokenizer import Tokenizer

    tokenizer = Tokenizer(folder / TOKENIZER, KEY)
    if tokenizer.fingerprint != index.words.sha256:
        raise UserError(
            f"{KEY}: {folder / TOKENIZER} is tokenizer {tokenizer.fingerprint[:12]}, the data was "
            f"prepared by {index.words.sha256[:12]}"
        )
    rows = training_rows(index, folder, seed=0)
    places = np.arange(count) * rows.per_epoch // count
    for place, text in zip(places, tokenizer.decode(rows.rows(places).tolist()), strict=True):
        yield f"row {place}: {text[:300]!r}"


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what tools/prepare_data.py wrote")
    parser.add_argument("--verify", action="store_true", help="read everything, compare SHA-256")
    parser.add_argument("--samples", type=int, default=3, help="rows to show (default: 3)")
    args = parser.parse_args(argv)

    from idlm_ds.data.index import check_hashes, check_sizes, read_index

    folder = args.folder
    index = read_index(folder, KEY)
    check_sizes(index, folder, KEY)
    if args.verify:
        with tqdm(total=sum(p.bytes for p in index.parts), unit="B", unit_scale=True) as bar:
            check_hashes(index, folder, KEY, bar.update)
    rows = f"{index.rows('train'):,} training and {index.rows('heldout'):,} held-out rows"
    print(f"{folder}: {rows} of {index.length} tokens, fingerprint {index.fingerprint}")
    for label, text in facts(index):
        print(f"  {label:<10} {text}")
    checked = "sizes and SHA-256 as in the index" if args.verify else "sizes as in the index"
    print(f"  {'files':<10} {len(index.parts)}, {checked}")
    print("  tokens of a document:")
    for line in histogram(lengths(index, folder)):
        print(line)
    for line in samples(index, folder, args.samples) if args.samples else ():
        print(f"  {line}")


if __name__ == "__main__":
    launch(main)
