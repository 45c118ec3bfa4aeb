"""Draw samples of saved models, or read texts made elsewhere, and have judges score them.

python tools/eval_genppl.py --checkpoint runs/quickstart/student --steps 4 8 --seed 0 1 2
python tools/eval_genppl.py --samples samples.json --judge hf:openai-community/gpt2-large
deepspeed tools/eval_genppl.py --checkpoint hf:kuleshov-group/mdlm-owt --steps 1024
    --tokenizer hf:openai-community/gpt2 --judge hf:openai-community/gpt2-large
"""

from collections.abc import Sequence

from idlm_ds.cli import launch, parse_options
from idlm_ds.evaluation.options import GenPplOptions


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    options = parse_options(GenPplOptions, __doc__, argv)

    from idlm_ds.engine.dist import in_world
    from idlm_ds.evaluation.genppl import run_genppl

    with in_world() as world:
        run_genppl(options, world)


if __name__ == "__main__":
    launch(main)
