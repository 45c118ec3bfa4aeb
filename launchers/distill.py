"""Distil a slow diffusion language model into a few-step generator.

deepspeed launchers/distill.py --config ds_configs/zero3.json
deepspeed launchers/distill.py --config ds_configs/zero3.json --recipe PATH optim.lr=1e-6
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from idlm_ds.cli import launch, train, training_parser
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import DistillRecipe

if TYPE_CHECKING:
    from idlm_ds.build.engines import EngineSetup
    from idlm_ds.runs.session import Session


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = training_parser(__doc__.splitlines()[0], recipe="quickstart")
    parser.add_argument(
        "--teacher", help="in place of the recipe's teacher.path: folder, file, hf:OWNER/NAME"
    )
    args = parser.parse_intermixed_args(argv)
    texts = {} if args.teacher is None else {"teacher.path": args.teacher}
    recipe = load_recipe(DistillRecipe, args.recipe, args.overrides, texts=texts)

    train(recipe, args, run)


def run(recipe: DistillRecipe, setup: "EngineSetup", session: "Session") -> None:
    """Run it; torch and DeepSpeed are imported only now."""
    from idlm_ds.runs.distill import run_distill

    run_distill(recipe, setup, session)


if __name__ == "__main__":
    launch(main, is_preemptible=True)
