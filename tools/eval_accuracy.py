"""Have saved models answer questions whose answers are numbers, and count the right ones.

python tools/eval_accuracy.py --checkpoint runs/gsm/student --data gsm8k_test.jsonl --steps 32 64
deepspeed tools/eval_accuracy.py --checkpoint hf:OWNER/NAME --data gsm8k_test.jsonl --seed 0 1 2

--data has a JSON object a line, with texts "question" and "answer". A prompt is the question and a
newline, as in TinyGSM. The answer is the number behind ####, or what the program returns that the
model wrote (straight arithmetic only; it is read, never run), or the last number. Prompts, outputs
and verdicts are written to OUTPUT/items; questions that have been answered are not asked again.
"""

from collections.abc import Sequence
from pathlib import Path

from idlm_ds.cli import Parser, add_grid_options, launch


def make_parser() -> Parser:
    """Arguments of this program."""
    parser = Parser(description=__doc__.splitlines()[0])
    add_grid_options(parser)
    parser.add_argument("--data", type=Path, required=True, help="JSON lines")
    parser.add_argument("--limit", type=int, help="questions to ask (default: all of the file)")
    parser.add_argument(
        "--bos", action="store_true", help="sequences begin with BOS, as framed training data does"
    )
    parser.add_argument("--output", type=Path, default=Path("results/accuracy"))
    return parser


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    args = vars(make_parser().parse_args(argv))
    del args["local_rank"]

    from idlm_ds.engine.dist import in_world
    from idlm_ds.evaluation.accuracy import AccuracyOptions, run_accuracy
    from idlm_ds.evaluation.grid import Grid

    asked = {name: args.pop(name) for name in ("data", "limit", "bos", "output")}
    options = AccuracyOptions(draws=Grid(**args, num_samples=1), **asked)
    with in_world() as world:
        run_accuracy(options, world)


if __name__ == "__main__":
    launch(main)
