"""Fill the gaps of texts, or go on from prompts, with a saved model of any family.

python tools/infill.py --checkpoint runs/quickstart/student --text "The ___2 of the United States"
python tools/infill.py --checkpoint assets:teacher --steps 64 --num-samples 4
    --text "Fellow citizens ___" "I ___8 to the Congress ___4 of war."

``___`` is a gap of --gap tokens and ``___8`` one of 8; one without a number at the end of a text
goes on to the end of the sequence. A text may be part of a longer one, which is drawn too and not
shown; --ends says that it is not.
"""

from collections.abc import Sequence

from idlm_ds.cli import launch, parse_options
from idlm_ds.evaluation.options import InfillOptions


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    options = parse_options(InfillOptions, __doc__, argv)

    from idlm_ds.evaluation.infill import run_infill

    run_infill(options)


if __name__ == "__main__":
    launch(main, is_alone=True)
