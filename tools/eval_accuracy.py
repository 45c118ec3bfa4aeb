"""Have saved models answer questions whose answers are numbers, and count the right ones.

python tools/eval_accuracy.py --checkpoint runs/gsm/student --data gsm8k_test.jsonl --steps 32 64
deepspeed tools/eval_accuracy.py --checkpoint hf:OWNER/NAME --data gsm8k_test.jsonl --seed 0 1 2

--data has a JSON object a line, with texts "question" and "answer". A prompt is the question and a
newline, as in TinyGSM. The answer is the number behind ####, or what the program returns that the
model wrote (straight arithmetic only; it is read, never run), or the last number. Prompts, outputs
and verdicts are written to OUTPUT/items; questions that have been answered are not asked again.
"""

from collections.abc import Sequence

from idlm_ds.cli import launch, parse_options
from idlm_ds.evaluation.options import AccuracyOptions


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    options = parse_options(AccuracyOptions, __doc__, argv)

    from idlm_ds.engine.dist import in_world
    from idlm_ds.evaluation.accuracy import run_accuracy

    with in_world() as world:
        run_accuracy(options, world)


if __name__ == "__main__":
    launch(main)
