"""Documents and files as they should not be, made from a seed."""

import gzip
import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

TEXT = "My fellow citizens, in the year 1862 the state — naïve ∑ 中文 🎈 — is strong.\n"

PIECES: tuple[Callable[[random.Random], str], ...] = (
    lambda r: TEXT * r.randint(1, 5),
    lambda r: "",
    lambda r: " \t\n" * r.randint(1, 9),
    lambda r: "\0" * r.randint(1, 3),
    lambda r: "\ufeff" + TEXT,
    lambda r: chr(r.randint(0xD800, 0xDFFF)),
    lambda r: chr(r.randint(0, 0x10FFFF)) * r.randint(1, 50),
    lambda r: "a" + "\u0301\u0327" * r.randint(1, 5000),
    lambda r: "x" * r.randint(1, 20_000),
    lambda r: "<|endoftext|>[MASK]</s>" * r.randint(1, 3),
    lambda r: "\u202e\u200b\u2028\u0085\r",
    lambda r: "".join(chr(r.randint(0, 0x2FFFF)) for _ in range(r.randint(1, 300))),
)

VALUES: tuple[Callable[[random.Random, str], object], ...] = (
    lambda r, text: text,
    lambda r, text: None,
    lambda r, text: r.randint(-(10**30), 10**30),
    lambda r, text: [text],
    lambda r, text: {"text": text},
    lambda r, text: r.random() < 0.5,
)


def document(r: random.Random) -> bytes:
    """One line of a corpus, sound or not; never with a newline in it."""
    text = "".join(r.choice(PIECES)(r) for _ in range(r.randint(1, 3)))
    value = text if r.random() < 0.7 else r.choice(VALUES)(r, text)
    record = {
        r.choice(["text"] * 9 + ["body"]): value,
        "id": r.choice([r.randint(0, 10**6), "same"]),
    }
    raw = json.dumps(record if r.random() < 0.95 else value, ensure_ascii=r.random() < 0.5)
    line = raw.encode("utf-8", r.choice(["surrogatepass", "replace"]))
    return (spoilt(line, r) if r.random() < 0.3 else line).replace(b"\n", b" ")


def spoilt(content: bytes, r: random.Random) -> bytes:
    """The same bytes, cut, flipped, blanked, moved, doubled or with others in them."""
    if not content:
        return content
    data = bytearray(content)
    for _ in range(r.randint(1, 4)):
        at = r.randrange(len(data) + 1)
        size = r.randint(1, max(1, len(data) // 4))
        match r.randrange(6):
            case 0:
                del data[at:]
            case 1 if at < len(data):
                data[at] ^= 1 << r.randrange(8)
            case 2:
                data[at : at + size] = bytes(len(data[at : at + size]))
            case 3:
                data[at:at] = r.randbytes(r.randint(1, 40))
            case 4:
                data[at:at] = data[:size]
            case _:
                del data[at : at + size]
    return bytes(data)


def sound_files(folder: Path, documents: int) -> list[Path]:
    """The same documents in every kind of file there is."""
    records = [{"text": f"{i} {TEXT}", "id": i} for i in range(documents)]
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    files = {
        "a.jsonl": lines,
        "b.txt": (TEXT * documents).encode(),
        "c.jsonl.gz": gzip.compress(lines),
        "d.jsonl.zst": pa.compress(lines, codec="zstd", asbytes=True),
        "e.jsonl.xz": lzma.compress(lines),
        "f.txt.gz": gzip.compress(lines),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    table = pa.Table.from_pylist(records)
    for codec in ("snappy", "zstd", "none"):
        pq.write_table(table, folder / f"{codec}.parquet", compression=codec, row_group_size=97)
    return sorted(folder.iterdir())
