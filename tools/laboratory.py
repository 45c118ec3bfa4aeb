"""Compare few-step students with exact teachers and bounds on languages that can be listed.

python tools/laboratory.py
python tools/laboratory.py --language pairs copy --updates 1500 --seeds 0 1 2 --output runs/lab
"""

from collections.abc import Sequence

from idlm_ds.cli import launch, parse_options
from idlm_ds.laboratory.options import LaboratoryOptions


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    options = parse_options(LaboratoryOptions, __doc__, argv)

    from idlm_ds.laboratory.run import run

    run(options)


if __name__ == "__main__":
    launch(main, is_alone=True)
