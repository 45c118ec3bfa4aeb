"""Train a teacher or a judge from nothing.

deepspeed launchers/pretrain.py --config ds_configs/zero1.json --recipe pretrain_teacher
"""

from collections.abc import Sequence
from pathlib import Path

from idlm_ds.cli import launch, training_parser
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import PretrainRecipe


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = training_parser(__doc__.splitlines()[0], recipe="pretrain_teacher")
    args = parser.parse_intermixed_args(argv)
    recipe = load_recipe(PretrainRecipe, args.recipe, args.overrides)

    from idlm_ds.build.parts import engine_setup
    from idlm_ds.build.pretrain import run_pretrain
    from idlm_ds.build.session import Options, Session
    from idlm_ds.engine.dist import in_world

    with in_world() as world:
        setup = engine_setup(args.config, recipe, world=world.size)
        output = args.output or Path("runs") / recipe.name
        options = Options(output=output, resume=args.resume, fresh=args.fresh)
        run_pretrain(recipe, setup, Session(recipe, options, world))


if __name__ == "__main__":
    launch(main)
