"""Write a model in another layout, and check that nothing changed on the way.

python tools/convert_checkpoint.py path/to/mdlm-owt mine --to idlm_ds
python tools/convert_checkpoint.py path/to/duo.ckpt duo --to hugging_face --dtype bfloat16
python tools/convert_checkpoint.py runs/distill/student sedd.pth --to sedd_training --fresh
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from idlm_ds.cli import Parser, launch
from idlm_ds.registry.families import FAMILIES
from idlm_ds.registry.layouts import LAYOUTS

if TYPE_CHECKING:
    from idlm_ds.checkpoints.conversion import Outcome

DTYPES = ("float32", "bfloat16", "float16")


def make_parser() -> Parser:
    """Arguments of the program."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a model folder, or a .ckpt, .pt or .pth file")
    parser.add_argument("target", type=Path, help="a folder; a file for the two training layouts")
    parser.add_argument("--to", required=True, choices=tuple(LAYOUTS), help="the layout to write")
    parser.add_argument("--family", choices=tuple(FAMILIES), help="where the source states none")
    parser.add_argument("--length", type=int, help="of a sequence, where the source states none")
    parser.add_argument(
        "--time-conditioning",
        choices=("yes", "no"),
        help="whether the network is shown the noise level (default: as the source says, else as "
        f"its family does: yes for {', '.join(r.name for r in FAMILIES.values() if r.sees_time)})",
    )
    parser.add_argument("--dtype", choices=DTYPES, help="cast to it (default: keep what is stored)")
    parser.add_argument(
        "--raw", action="store_true", help="carry the weights alone, not their running mean"
    )
    parser.add_argument("--max-shard-size", help="of files in Hugging Face folders (default: 5GB)")
    parser.add_argument("--fresh", action="store_true", help="replace the model that target is")
    return parser


def rows(outcome: "Outcome", dtype: str | None) -> Iterator[tuple[str, str]]:
    """List what was written and how it was checked, as label and text."""
    cast = "" if dtype is None else f", after the cast to {dtype}"
    same = f"largest difference {outcome.difference:.3g} (largest logit {outcome.largest:.3g})"
    yield "parameters", f"{outcome.written.parameters:,}, stored as {outcome.written.dtype}"
    yield "compared", f"{' and '.join(outcome.sets)}: every tensor bit for bit{cast}"
    yield "logits", f"of {outcome.tokens} tokens: {same}"
    yield "not held", ", ".join(outcome.lost) or "nothing is lost"
    yield "tokenizer", ", ".join(outcome.copied) or "none copied"


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    args = make_parser().parse_args(argv)

    import torch

    from idlm_ds.checkpoints.conversion import ConversionOptions, convert

    options = ConversionOptions(
        layout=args.to,
        family=args.family,
        length=args.length,
        sees_time={"yes": True, "no": False, None: None}[args.time_conditioning],
        dtype=getattr(torch, args.dtype) if args.dtype else None,
        is_raw=args.raw,
        max_shard_size=args.max_shard_size,
    )
    outcome = convert(args.source, args.target, options, fresh=args.fresh)
    print(f"{args.source}: {LAYOUTS[outcome.source.layout].description}")
    print(f"{args.target}: {LAYOUTS[outcome.written.layout].description}")
    for label, text in rows(outcome, args.dtype):
        print(f"  {label:<11} {text}")


if __name__ == "__main__":
    launch(main, is_alone=True)
