"""Say what a checkpoint holds, without executing anything in it.

python tools/inspect_checkpoint.py path/to/mdlm-owt
python tools/inspect_checkpoint.py path/to/duo.ckpt --raw --no-hashes
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from idlm_ds.cli import Parser, launch
from idlm_ds.registry.layouts import LAYOUTS

if TYPE_CHECKING:
    from idlm_ds.checkpoints.formats.description import Description

UNKNOWN = "not told"


def rows(about: "Description") -> Iterator[tuple[str, str]]:
    """Everything but the files, as label and text."""
    from idlm_ds.checkpoints.formats.plans import listed

    sizes = {k: v for k, v in about.sizes.items() if k != "vocab_size"}
    yield "family", about.family or UNKNOWN
    yield "network", f"{about.kind}: {', '.join(f'{k} {v}' for k, v in sizes.items())}"
    yield "parameters", f"{about.parameters:,}, stored as {about.dtype}"
    yield "vocabulary", f"{about.vocab_size}"
    no_mask = UNKNOWN if about.family is None else "none"
    yield "mask id", no_mask if about.mask_id is None else f"{about.mask_id}"
    yield "length", f"{about.length or UNKNOWN}"
    yield "weights", weights(about)
    yield "stripped", ", ".join(about.stripped) or "nothing"
    yield "not read", listed(about.ignored) or "nothing"


def weights(about: "Description") -> str:
    """Which weights are read, and which else there are."""
    if about.ema is None:
        return "the only ones"
    decay = UNKNOWN if about.ema.decay is None else f"{about.ema.decay:g}"
    updates = UNKNOWN if about.ema.updates is None else f"{about.ema.updates}"
    mean = f"running mean (decay {decay}, updates {updates})"
    return f"{mean}; --raw for the others" if about.is_ema else f"raw; there is also a {mean}"


def sha256(path: Path) -> str:
    """First digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="a model folder, or a .ckpt, .pt or .pth file")
    parser.add_argument("--raw", action="store_true", help="look at the weights, not their mean")
    parser.add_argument("--no-hashes", action="store_true", help="do not read whole files")
    args = parser.parse_args(argv)

    from idlm_ds.checkpoints.formats.public import read_public

    about = read_public(args.path, prefer_ema=not args.raw).about
    print(f"{args.path}: {LAYOUTS[about.layout].description}")
    for label, text in rows(about):
        print(f"  {label:<11} {text}")
    for path in about.files:
        digest = "" if args.no_hashes else f"sha256 {sha256(path)}, "
        print(f"  {'file':<11} {path.name} ({digest}{path.stat().st_size:,} bytes)")


if __name__ == "__main__":
    launch(main, is_alone=True)
