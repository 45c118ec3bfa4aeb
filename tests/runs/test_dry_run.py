"""Bytes a process holds, by ZeRO stage and by who shares a copy of the teacher."""

from types import SimpleNamespace

import pytest

from idlm_ds.runs.dry_run import memory_estimate, sharing_processes

SIZE, WORLD = 1000, 8


def _setup(stage: int, precision: str = "fp32") -> SimpleNamespace:
    numerics = SimpleNamespace(world=WORLD, precision=precision)
    return SimpleNamespace(json=SimpleNamespace(stage=stage), numerics=numerics)


@pytest.mark.parametrize(
    ("sharding", "stage", "precision", "teacher"),
    [
        ("world", 3, "fp32", 4 * SIZE / 8),
        ("node", 3, "fp32", 4 * SIZE / 2),
        ("none", 3, "fp32", 4 * SIZE),
        ("none", 3, "bf16", 2 * SIZE),
        ("world", 2, "fp32", 4 * SIZE),
        ("none", 2, "fp32", 4 * SIZE),
    ],
)
def test_a_teacher_takes_its_weights_divided_by_those_who_share_it(
    sharding, stage, precision, teacher, monkeypatch
):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    setup = _setup(stage, precision)
    sharing = sharing_processes(sharding, WORLD)
    memory = memory_estimate(SIZE, setup, {"student": 1}, frozen={"teacher": sharing})
    shared_by_all = memory_estimate(SIZE, setup, {"student": 1}, frozen={"teacher": WORLD})
    assert memory["teacher"] == teacher
    assert memory["student"] == shared_by_all["student"]
    assert memory["together"] == memory["teacher"] + memory["student"]


def test_a_host_has_no_more_processes_than_there_are(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert sharing_processes("node", 4) == 4
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.delenv("LOCAL_SIZE", raising=False)
    assert sharing_processes("node", 4) == 1
