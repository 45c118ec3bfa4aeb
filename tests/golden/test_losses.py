"""The first losses of every method and family, committed.

A change that is meant to be neutral leaves them as they are. One that is meant to change them says
so and writes them anew in the same commit: ``python -m tests.golden.test_losses``.
"""

import json
from pathlib import Path

import pytest
import torch

from idlm_ds.train.step import train_step
from tests.train.toy import METHODS, batches, program_of

FILE = Path(__file__).with_name("losses.json")
STEPS = 20
TOLERANCE = 1e-4
"""Relative and absolute: the order of float32 sums differs between machines."""


def first_losses(name: str, family: str) -> list[float]:
    program = program_of(name, family)
    return [
        train_step(program, step, batch, is_logged=True).loss
        for step, batch in enumerate(batches(STEPS))
    ]


@pytest.mark.parametrize(("name", "family"), METHODS)
def test_the_first_losses_are_what_they_were(name, family):
    wanted = json.loads(FILE.read_text())[f"{name}-{family}"]
    assert len(wanted) == STEPS
    assert first_losses(name, family) == pytest.approx(wanted, rel=TOLERANCE, abs=TOLERANCE)


if __name__ == "__main__":
    torch.set_num_threads(1)
    losses = {f"{name}-{family}": first_losses(name, family) for name, family in METHODS}
    FILE.write_text(json.dumps(losses, indent=1) + "\n")
