"""Train a teacher or a judge from nothing.

deepspeed launchers/pretrain.py --config ds_configs/zero1.json --recipe pretrain_teacher
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from idlm_ds.cli import launch, train, training_parser
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import PretrainRecipe

if TYPE_CHECKING:
    from idlm_ds.build.engines import EngineSetup
    from idlm_ds.runs.session import Session


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = training_parser(__doc__.splitlines()[0], recipe="pretrain_teacher")
    args = parser.parse_intermixed_args(argv)
    recipe = load_recipe(PretrainRecipe, args.recipe, args.overrides)

    train(recipe, args, run)


def run(recipe: PretrainRecipe, setup: "EngineSetup", session: "Session") -> None:
    """Run it; torch and DeepSpeed are imported only now."""
    from idlm_ds.runs.pretrain import run_pretrain

    run_pretrain(recipe, setup, session)


if __name__ == "__main__":
    launch(main, is_preemptible=True)
