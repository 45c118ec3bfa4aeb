"""Print text from a distilled student (or a teacher).

python launchers/sample.py --checkpoint runs/quickstart/student --steps 8 --num-samples 4
python launchers/sample.py --checkpoint assets:teacher --steps 64 --output samples.json
python launchers/sample.py --checkpoint assets:teacher --sampler blockwise --prompt "The people"
"""

from collections.abc import Sequence

from idlm_ds.cli import launch, parse_options
from idlm_ds.evaluation.options import SampleOptions


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    options = parse_options(SampleOptions, __doc__, argv)

    from idlm_ds.evaluation.sampling import run_sample

    run_sample(options)


if __name__ == "__main__":
    launch(main, is_alone=True)
