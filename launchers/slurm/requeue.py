"""Tell by its exit code whether a job is worth another start: 0 yes, 1 no, and why not.

python launchers/slurm/requeue.py CODE ARGUMENTS OF launchers/distill.py
"""

import sys
from collections.abc import Sequence

from idlm_ds.cli import launch, output_folder, training_parser
from idlm_ds.console import say
from idlm_ds.errors import UserError
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import DistillRecipe
from idlm_ds.runs.requeue import why_not_again


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    code, *arguments = argv
    if reason := why_not(int(code), arguments):
        say(f"not started again: {reason}")
        sys.exit(1)
    say("starting again")


def why_not(code: int, arguments: Sequence[str]) -> str | None:
    """Find the run's folder as the launcher does, and ask what it left there."""
    parser = training_parser(__doc__.splitlines()[0], recipe="quickstart")
    parser.add_argument("--teacher")
    try:
        args = parser.parse_intermixed_args(arguments)
        recipe = load_recipe(DistillRecipe, args.recipe, args.overrides)
    except UserError:  # the launcher has said it
        return f"exit code {code}"
    return why_not_again(output_folder(args, recipe), code)


if __name__ == "__main__":
    launch(main)
