"""Write a distilled student as a Hugging Face folder that needs no package but transformers.

python tools/export_student.py runs/quickstart --output exported/quickstart
python tools/export_student.py runs/mine/checkpoints/step-4000 --output exported/mine \
    --dtype bfloat16 --steps 16 --license mit
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from idlm_ds.cli import Parser, launch
from idlm_ds.evaluation.options import ChainOptions
from idlm_ds.options import add_options, read_options


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "model", help="a run, its student's folder, or a checkpoint of its training"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--fresh", action="store_true", help="replace an earlier export there")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--max-shard-size", default="5GB", help="weights are split above it")
    parser.add_argument(
        "--card", help="model folder with the network and tokenizer of a checkpoint without a run"
    )
    parser.add_argument("--license", help="of the weights, as the hub calls it (e.g. mit)")
    parser.add_argument("--base-model", help="the teacher's repository on the hub")
    chain = parser.add_argument_group("how generate() samples by default")
    add_options(chain, ChainOptions)
    args = vars(parser.parse_args(argv))
    settings = asdict(read_options(ChainOptions, args))

    from idlm_ds.export.write import ExportOptions, export

    own = {name: value for name, value in args.items() if name not in settings}
    options = ExportOptions(chain=settings, **own)
    student = export(options)
    files = len(list(options.output.glob("*.safetensors")))
    about = student.about
    print(
        f"{options.output}: {about.kind} of family {about.family}, {about.parameters:,} parameters"
    )
    print(f"  {options.dtype}, {files} file{'s'[: files != 1]} of at most {options.max_shard_size}")


if __name__ == "__main__":
    launch(main, is_alone=True)
