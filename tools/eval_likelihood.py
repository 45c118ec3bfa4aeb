"""Measure how well saved diffusion models predict text: NLL, bits and perplexity, by the NELBO.

python tools/eval_likelihood.py --checkpoint assets:teacher --text assets:sotu --heldout-every 20
python tools/eval_likelihood.py --checkpoint runs/quickstart/student --text a.txt b.jsonl --no-eos
"""

from collections.abc import Sequence

from idlm_ds.cli import launch, parse_options
from idlm_ds.evaluation.options import LikelihoodOptions


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    options = parse_options(LikelihoodOptions, __doc__, argv)

    from idlm_ds.engine.dist import in_world
    from idlm_ds.evaluation.likelihood import run_likelihood

    with in_world() as world:
        run_likelihood(options, world)


if __name__ == "__main__":
    launch(main)
