"""Fill the gaps of texts, or go on from prompts, with a saved model of any family.

python tools/infill.py --checkpoint runs/quickstart/student --text "The ___2 of the United States"
python tools/infill.py --checkpoint assets:teacher --steps 64 --num-samples 4
    --text "Fellow citizens ___" "I ___8 to the Congress ___4 of war."

``___`` is a gap of --gap tokens and ``___8`` one of 8; one without a number at the end of a text
goes on to the end of the sequence. A text may be part of a longer one, which is drawn too and not
shown; --ends says that it is not.
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from idlm_ds.cli import Parser, add_model_options, launch


def make_parser() -> Parser:
    """Arguments of this program."""
    parser = Parser(description=__doc__.splitlines()[0])
    add_model_options(parser)
    parser.add_argument(
        "--checkpoint", required=True, help="model folder or file, hf:OWNER/NAME, or assets:teacher"
    )
    parser.add_argument("--text", nargs="+", required=True, dest="texts", help="with ___ for gaps")
    parser.add_argument("--gap", type=int, default=4, help="tokens of a gap without a number")
    parser.add_argument("--ends", action="store_true", help="texts are whole: end of text follows")
    parser.add_argument(
        "--bos", action="store_true", help="sequences begin with BOS, as framed training data does"
    )
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--num-samples", type=int, default=1, help="of each text")
    parser.add_argument(
        "--sampler", default="ancestral", choices=("ancestral", "greedy", "analytic", "euler")
    )
    parser.add_argument("--precision", default="float64", choices=("float64", "float32"))
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--nucleus", type=float, default=1.0, help="mass of tokens kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file with texts and what filled them")
    return parser


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    args = vars(make_parser().parse_args(argv))
    del args["local_rank"]

    from idlm_ds.evaluation.completion import Draws
    from idlm_ds.evaluation.infill import InfillOptions, run_infill

    draw = Draws(**{f.name: args.pop(f.name) for f in fields(Draws)})
    run_infill(InfillOptions(draw=draw, **args))


if __name__ == "__main__":
    launch(main)
