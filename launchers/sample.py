"""Print text from a distilled student (or a teacher).

python launchers/sample.py --checkpoint runs/quickstart/student --steps 8 --num-samples 4
python launchers/sample.py --checkpoint assets:teacher --steps 64 --output samples.json
"""

from collections.abc import Sequence
from pathlib import Path

from idlm_ds.cli import Parser, launch


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True, help="model folder, or assets:teacher")
    parser.add_argument("--steps", type=int, default=8, help="network calls a sample")
    parser.add_argument("--num-samples", type=int, default=4)
    parser.add_argument("--length", type=int, help="tokens a sample (default: as in training)")
    parser.add_argument(
        "--sampler", choices=("ancestral", "analytic", "euler"), default="ancestral"
    )
    parser.add_argument(
        "--tail", choices=("ancestral", "greedy", "none"), default="ancestral", help="last step"
    )
    parser.add_argument("--precision", choices=("float64", "float32"), default="float64")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--nucleus", type=float, default=1.0, help="mass of tokens kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64, help="samples drawn at once")
    parser.add_argument("--judge", default="assets:judge", help="scores what --output gets")
    parser.add_argument("--output", type=Path, help="JSON file with all samples and their scores")
    args = parser.parse_args(argv)

    from idlm_ds.compose.sampling import SampleOptions, run_sample

    run_sample(SampleOptions(**vars(args)))


if __name__ == "__main__":
    launch(main)
