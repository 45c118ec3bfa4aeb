"""The loop around the phases, on stubs: what hooks see, and how they end a run."""

import sys
from types import SimpleNamespace

import pytest
import torch

from idlm_ds.objectives.alternation import Phase
from idlm_ds.train.flops import Meter
from idlm_ds.train.loop import PhaseRecord, Stop, run_phases

from .toy import GLOBAL_BATCH, LENGTH, batches, program_of


class Seen:
    """A hook that remembers, and ends the run where it is told to."""

    def __init__(self, *, ends_at: int | None = None) -> None:
        self.records: list[PhaseRecord] = []
        self.closed = 0
        self._ends_at = ends_at

    def after_phase(self, record: PhaseRecord) -> Stop | None:
        self.records.append(record)
        return Stop(f"seen {record.step}") if record.step == self._ends_at else None

    def close(self) -> None:
        self.closed += 1


def loader(count: int = 8) -> SimpleNamespace:
    every = list(batches(count))
    return SimpleNamespace(
        global_batch=GLOBAL_BATCH,
        windows=SimpleNamespace(length=LENGTH),
        device=torch.device("cpu"),
        batches=lambda start, stop: iter(every[start:stop]),
    )


def test_records_count_phases_and_updates_from_where_the_run_begins():
    hook = Seen()
    assert run_phases(program_of("dmd", "duo"), loader(), [hook], start=2, stop=7) is None
    assert [(r.step, r.phase, r.update) for r in hook.records] == [
        (2, "student", 1),
        (3, "fake", 3),
        (4, "fake", 4),
        (5, "student", 2),
        (6, "fake", 5),
    ]
    assert hook.closed == 1


def test_a_hook_that_is_closed_can_see_what_ends_the_run():
    class Fails(Seen):
        def after_phase(self, record: PhaseRecord) -> None:
            raise MemoryError

        def close(self) -> None:
            self.error = sys.exc_info()[1]

    hook = Fails()
    with pytest.raises(MemoryError) as raised:
        run_phases(program_of("idlm"), loader(), [hook], start=0, stop=2)
    assert hook.error is raised.value


def test_hooks_are_closed_from_the_last_even_where_one_fails():
    order = []

    class Closes(Seen):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def close(self) -> None:
            order.append(self.name)
            if self.name == "sink":
                raise OSError("no network")

    hooks = [Closes(name) for name in ("metrics", "sink", "saver")]
    with pytest.raises(OSError, match="no network"):
        run_phases(program_of("idlm"), loader(), hooks, start=0, stop=2)
    assert order == ["saver", "sink", "metrics"]


@pytest.mark.parametrize(
    ("every", "logged"),
    [(1, [1, 3, 5, 7]), (2, [1, 3, 5, 7]), (4, [3, 7]), (3, [1, 5, 7]), (99, [])],
)
def test_metrics_come_once_an_interval_with_the_first_phase_that_has_them(every, logged):
    hook = Seen()
    run_phases(program_of("idlm"), loader(), [hook], start=0, stop=8, log_every=every)
    assert [record.step for record in hook.records if record.metrics] == logged
    assert [r.step for r in hook.records if r.loss is None] == sorted({1, 3, 5, 7} - set(logged))
    for record in hook.records:
        line = record.to_json()
        assert line.keys() >= record.metrics.keys()
        assert "metrics" not in line


def test_records_say_what_share_of_the_peak_is_used_where_a_meter_knows():
    for meter in (None, Meter({Phase.FAKE: 10.0, Phase.STUDENT: 20.0}, peak=1e9)):
        hook = Seen()
        run_phases(program_of("idlm"), loader(), [hook], start=0, stop=2, meter=meter)
        for record, cost in zip(hook.records, (10.0, 20.0), strict=True):
            expected = None if meter is None else cost * record.tokens_per_s / 1e9
            assert record.mfu == expected
            assert record.to_json()["mfu"] == expected


def test_a_hook_ends_the_run_after_all_others_have_seen_the_phase():
    first, ending, last = Seen(), Seen(ends_at=2), Seen(ends_at=2)
    stop = run_phases(program_of("idlm"), loader(), [first, ending, last], start=0, stop=8)
    assert stop == Stop("seen 2")
    for hook in (first, ending, last):
        assert [record.step for record in hook.records] == [0, 1, 2]
        assert hook.closed == 1


def test_hooks_are_closed_when_training_fails():
    program, hook = program_of("idlm"), Seen()
    with torch.no_grad():
        program.roles["teacher"].module.output_layer.linear.bias.fill_(torch.nan)
    with pytest.raises(RuntimeError, match="step 1: the loss is nan"):
        run_phases(program, loader(), [hook], start=0, stop=8)
    assert [record.step for record in hook.records] == [0]
    assert hook.closed == 1
