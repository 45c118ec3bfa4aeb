"""Print text from a distilled student (or a teacher).

python launchers/sample.py --checkpoint runs/quickstart/student --steps 8 --num-samples 4
python launchers/sample.py --checkpoint assets:teacher --steps 64 --output samples.json
python launchers/sample.py --checkpoint assets:teacher --sampler blockwise --prompt "The people"
"""

from collections.abc import Sequence
from pathlib import Path

from idlm_ds.cli import Parser, launch


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", required=True, help="model folder or file, hf:OWNER/NAME, or assets:teacher"
    )
    parser.add_argument("--tokenizer", help="its folder or hub name (default: the checkpoint's)")
    parser.add_argument(
        "--process", choices=("mdlm", "sedd", "udlm", "duo"), help="where the checkpoint tells none"
    )
    parser.add_argument("--steps", type=int, default=8, help="network calls a sample")
    parser.add_argument("--num-samples", type=int, default=4)
    parser.add_argument(
        "--length", type=int, help="tokens drawn a sample (default: as in training, with prompt)"
    )
    parser.add_argument(
        "--sampler", choices=("ancestral", "analytic", "euler", "blockwise"), default="ancestral"
    )
    parser.add_argument(
        "--tail", choices=("ancestral", "greedy", "none"), default="ancestral", help="last step"
    )
    parser.add_argument("--precision", choices=("float64", "float32"), default="float64")
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="blockwise also takes 0: the likeliest token"
    )
    parser.add_argument("--nucleus", type=float, default=1.0, help="mass of tokens kept")
    blockwise = parser.add_argument_group("of --sampler blockwise")
    blockwise.add_argument("--prompt", help="text that samples begin with (default: none)")
    blockwise.add_argument("--block", type=int, help="tokens filled together (default: --length)")
    blockwise.add_argument(
        "--remasking",
        choices=("low_confidence", "random"),
        help="which candidates a step throws away (default: low_confidence)",
    )
    blockwise.add_argument(
        "--guidance", type=float, help="how far scores move away from those without the prompt"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64, help="samples drawn at once")
    parser.add_argument("--judge", default="assets:judge", help="scores what --output gets")
    parser.add_argument("--output", type=Path, help="JSON file with all samples and their scores")
    args = parser.parse_args(argv)

    from idlm_ds.evaluation.sampling import SampleOptions, run_sample

    run_sample(SampleOptions(**vars(args)))


if __name__ == "__main__":
    launch(main)
