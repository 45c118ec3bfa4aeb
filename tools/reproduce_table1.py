"""Measure the published checkpoints again and hold the figures against the paper's.

python tools/reproduce_table1.py --judge hf:openai-community/gpt2-large --output results/table1
python tools/reproduce_table1.py --stand-ins        # tiny random networks: shows that it runs
"""

from collections.abc import Sequence

from idlm_ds.cli import launch, parse_options
from idlm_ds.evaluation.options import TableOptions


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    options = parse_options(TableOptions, __doc__, argv)

    from idlm_ds.engine.dist import in_world
    from idlm_ds.evaluation.published_table import read_table, run_table

    table = read_table(options.table)
    with in_world() as world:
        run_table(table, options, world)


if __name__ == "__main__":
    launch(main)
