"""Train a teacher or a judge from nothing.

deepspeed launchers/pretrain.py --config ds_configs/zero1.json --recipe pretrain_teacher
"""

from collections.abc import Sequence

from idlm_ds.cli import launch, train, training_parser
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import PretrainRecipe


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = training_parser(__doc__.splitlines()[0], recipe="pretrain_teacher")
    args = parser.parse_intermixed_args(argv)
    recipe = load_recipe(PretrainRecipe, args.recipe, args.overrides)

    from idlm_ds.runs.pretrain import run_pretrain

    train(recipe, args, run_pretrain)


if __name__ == "__main__":
    launch(main, is_preemptible=True)
