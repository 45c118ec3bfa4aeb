"""Show what a folder of prepared data contains, and verify its files.

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
MEASURED_ROWS = 20_000
"""Number of rows from which the lengths of documents are taken."""


def facts(index: "Index") -> Iterator[tuple[str, str]]:
    """Yield what the index says, as pairs of label and text."""
    tokenizer, counts = index.tokenizer, index.documents
    yield "tokenizer", f"{tokenizer.sha256[:12]}, {tokenizer.size} words"
    mask = "none" if tokenizer.mask is None else tokenizer.mask
    yield "special", f"bos {tokenizer.bos}, eos {tokenizer.eos}, pad {tokenizer.pad}, mask {mask}"
    frame = "framed" if index.framed else "not framed"
    yield "packing", f"{index.pack}, {frame}{', documents end with eos' if index.ends else ''}"
    for member in index.source["corpus"]:
        names = [f["name"] for f in member.get("files", [])]
        yield "source", member.get("hub") or f"{len(names)} files: {', '.join(names[:5])}"
    dropped = sum(counts["dropped"].values())
    yield "documents", f"{counts['read']:,} read = {counts['kept']:,} kept + {dropped:,} dropped"
    yield "", f"{counts['repaired']:,} of them repaired, {counts['truncated']:,} cut at a row's end"
    for reason, count in counts["dropped"].items():
        yield "dropped", f"{count:,} {reason}"
    for file, reason in index.damaged.items():
        yield "damaged", f"{file}: {reason}"


def lengths(index: "Index", folder: Path) -> np.ndarray:
    """Measure documents in tokens, in the first rows of each training shard."""
    from idlm_ds.data.prepared import span_array, token_array

    shards, measured = index.splits["train"], [np.empty(0, np.int64)]
    for shard in shards:
        head = slice(max(1, MEASURED_ROWS // len(shards)))
        spans = span_array(folder, shard)
        if spans is not None:
            measured.append(spans[head, 1])
        elif index.ends:
            # Wrapped documents are what lies between two end-of-text tokens.
            rows = token_array(index, folder, shard)[head]
            stream = (rows[:, 1:-1] if index.framed else rows).reshape(-1)
            measured.append(np.diff(np.flatnonzero(stream == index.tokenizer.eos)))
    return np.concatenate(measured)


def histogram(values: np.ndarray) -> Iterator[str]:
    """Yield the lines of a bar chart over powers of two."""
    bins = np.bincount(np.log2(np.maximum(values, 1)).astype(int)) if len(values) else []
    for power, count in enumerate(bins):
        if count:
            bar = "#" * int(np.ceil(40 * count / max(bins)))
            yield f"{2**power:>9,} - {2 ** (power + 1) - 1:<9,} {count:>9,} {bar}"


def samples(index: "Index", folder: Path, count: int) -> Iterator[str]:
    """Decode rows at even distances in the training data."""
    from idlm_ds.data.index import TOKENIZER_FOLDER
    from idlm_ds.data.prepared import training_rows
    from idlm_ds.data.tokenizer import Tokenizer

    tokenizer = Tokenizer(folder / TOKENIZER_FOLDER, KEY)
    if tokenizer.fingerprint != index.tokenizer.sha256:
        raise UserError(
            f"{KEY}: {folder / TOKENIZER_FOLDER} is tokenizer {tokenizer.fingerprint[:12]}, "
            f"the data was prepared by {index.tokenizer.sha256[:12]}"
        )
    rows = training_rows(index, folder, seed=0)
    numbers = np.arange(count) * rows.per_epoch // count
    for number, text in zip(numbers, tokenizer.decode(rows.rows(numbers).tolist()), strict=True):
        yield f"row {number}: {text[:300]!r}"


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="output of tools/prepare_data.py")
    parser.add_argument("--verify", action="store_true", help="read everything, compare SHA-256")
    parser.add_argument("--samples", type=int, default=3, help="rows to show (default: 3)")
    args = parser.parse_args(argv)

    from idlm_ds.data.index import check_hashes, check_sizes, read_index

    folder = args.folder
    index = read_index(folder, KEY)
    check_sizes(index, folder, KEY)
    if args.verify:
        with tqdm(total=sum(f.bytes for f in index.files), unit="B", unit_scale=True) as bar:
            check_hashes(index, folder, KEY, bar.update)
    rows = f"{index.rows('train'):,} training and {index.rows('heldout'):,} held-out rows"
    print(f"{folder}: {rows} of {index.length} tokens, fingerprint {index.fingerprint}")
    for label, text in facts(index):
        print(f"  {label:<10} {text}")
    checked = "sizes and SHA-256 as in the index" if args.verify else "sizes as in the index"
    print(f"  {'files':<10} {len(index.files)}, {checked}")
    print("  tokens of a document:")
    for line in histogram(lengths(index, folder)):
        print(line)
    for line in samples(index, folder, args.samples) if args.samples else ():
        print(f"  {line}")


if __name__ == "__main__":
    launch(main, is_alone=True)
