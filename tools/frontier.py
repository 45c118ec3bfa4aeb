"""Plot GenPPL against entropy over temperatures: teacher, student, real text, a naive control.

python tools/frontier.py --student runs/quickstart/student --output runs/quickstart/frontier
"""

from collections.abc import Sequence

from idlm_ds.cli import launch, parse_options
from idlm_ds.evaluation.options import FrontierOptions


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    options = parse_options(FrontierOptions, __doc__, argv)

    from idlm_ds.engine.dist import in_world
    from idlm_ds.evaluation.frontier import run_frontier

    with in_world() as world:
        run_frontier(options, world)


if __name__ == "__main__":
    launch(main)
