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

from idlm_ds.cli import Parser, launch


def make_parser() -> Parser:
    """Arguments of this program."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        required=True,
        dest="checkpoints",
        help="model folders or files of any layout, hf:OWNER/NAME[@REVISION], assets:teacher",
    )
    parser.add_argument("--data", type=Path, required=True, help="JSON lines")
    parser.add_argument("--limit", type=int, help="questions to ask (default: all of the file)")
    parser.add_argument(
        "--bos", action="store_true", help="sequences begin with BOS, as framed training data does"
    )
    parser.add_argument("--steps", nargs="+", type=int, default=[8])
    parser.add_argument(
        "--sampler",
        nargs="+",
        default=["ancestral"],
        choices=("ancestral", "greedy", "analytic", "euler"),
        dest="samplers",
        help="greedy is ancestral with the likeliest token in the last step",
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["float64"],
        choices=("float64", "float32"),
        dest="precisions",
        help="of the draws; float32 repeats the bias of published samplers",
    )
    parser.add_argument("--temperature", nargs="+", type=float, default=[1.0], dest="temperatures")
    parser.add_argument(
        "--nucleus", nargs="+", type=float, default=[1.0], dest="nuclei", help="mass that is kept"
    )
    parser.add_argument("--seed", nargs="+", type=int, default=[0], dest="seeds")
    parser.add_argument("--length", type=int, help="tokens of a sequence (default: as in training)")
    parser.add_argument("--batch-size", type=int, default=32, dest="batch")
    parser.add_argument(
        "--process", choices=("mdlm", "sedd", "udlm", "duo"), help="where a checkpoint tells none"
    )
    parser.add_argument("--tokenizer", help="its folder or hub name (default: the checkpoint's)")
    parser.add_argument("--output", type=Path, default=Path("results/accuracy"))
    parser.add_argument("--local_rank", type=int, help="set by launchers; not used")
    return parser


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    args = vars(make_parser().parse_args(argv))
    del args["local_rank"]

    from idlm_ds.compose.accuracy import AccuracyOptions, run_accuracy
    from idlm_ds.compose.cells import GenPplOptions
    from idlm_ds.engine.dist import in_world

    asked = {name: args.pop(name) for name in ("data", "limit", "bos")}
    draws = GenPplOptions(**args, samples=[], judges=[], num_samples=1)
    options = AccuracyOptions(draws=draws, **asked)
    with in_world() as world:
        run_accuracy(options, world)


if __name__ == "__main__":
    launch(main)
