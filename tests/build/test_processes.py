import itertools
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from idlm_ds.build.processes import check_family, read_family, vocabulary_of
from idlm_ds.errors import UserError
from idlm_ds.processes.base import Process
from idlm_ds.processes.by_name import make_process
from idlm_ds.processes.duo import Duo
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.sedd import SEDD
from idlm_ds.processes.udlm import UDLM
from idlm_ds.recipes.sections import ProcessSection
from idlm_ds.schedules.base import NoiseSchedule
from idlm_ds.schedules.gaussian import DuoClock

FAMILIES = {"mdlm": MDLM, "sedd": SEDD, "udlm": UDLM, "duo": Duo}
WORDS = 7
"""Ids of the tokenizer."""

NOT_DEFAULT = {"eps": 0.02, "sigma_min": 1e-2, "sigma_max": 5.0}
SURVIVE_HALF_WAY = {
    "loglinear": 1 - 0.98 * 0.5,
    "cosine": 0.02 + 0.98 * math.cos(math.pi / 4),
    "geometric": math.exp(-math.sqrt(1e-2 * 5.0)),
}
"""Probability at time 1/2 that a token is still itself."""


def alpha(schedule: NoiseSchedule, t: float = 0.5) -> float:
    return schedule.at(torch.tensor([t], dtype=torch.float64)).alpha.item()


def built(vocab_size: int = WORDS + 1, mask_id: int = WORDS, **fields: Any) -> Process:
    return make_process(asdict(ProcessSection(**fields)), vocab_size, mask_id)


def clock(**fields: Any) -> DuoClock:
    process = built(name="duo", **fields)
    assert isinstance(process, Duo)
    return process.clock


@pytest.mark.parametrize("schedule", SURVIVE_HALF_WAY)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_and_its_schedule_are_what_they_are_called(name, schedule):
    process = built(name=name, schedule=schedule, **NOT_DEFAULT)
    assert type(process) is FAMILIES[name]
    assert process.vocab_size == WORDS + 1
    assert alpha(process.schedule) == pytest.approx(SURVIVE_HALF_WAY[schedule], rel=1e-12)


@pytest.mark.parametrize("name", ["mdlm", "sedd"])
def test_the_mask_is_the_id_asked_for(name):
    assert built(WORDS, 3, name=name).mask_id == 3


def test_a_new_vocabulary_has_one_id_more_than_the_tokenizer_or_its_own_mask():
    assert vocabulary_of(ProcessSection(name="mdlm"), WORDS) == (WORDS + 1, WORDS)
    assert vocabulary_of(ProcessSection(name="mdlm", mask_id=0), WORDS) == (WORDS, 0)
    with pytest.raises(UserError, match=rf"^process\.mask_id: {WORDS} is no id of .* {WORDS};"):
        vocabulary_of(ProcessSection(name="mdlm", mask_id=WORDS), WORDS)


def test_the_gaussian_clock_runs_through_its_range_whatever_the_schedule():
    ranged = clock(schedule="geometric", gamma_min=-4.0, gamma_max=-1.0)
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert ranged.gamma(t).tolist() == [-4.0, -2.5, -1.0]
    assert ranged.map.vocab_size == WORDS + 1
    default = clock().gamma(t)
    assert default.tolist() == pytest.approx([-3.55, -2.7, -1.85])


def test_the_loglinear_clock_falls_linearly_whatever_the_schedule():
    linear = clock(clock="loglinear", schedule="geometric", eps=0.02)
    for t in (0.1, 0.5, 0.9):
        assert alpha(linear, t) == pytest.approx(1 - 0.98 * t, rel=1e-12)


def test_duo_is_relaxed_at_the_temperature_asked_for():
    assert built(name="duo", tau=0.25).tau == 0.25


def told(**fields: Any) -> dict[str, Any]:
    """All that a model of this package says of its family."""
    return asdict(ProcessSection(**fields))


ACCEPTED = {(name, name) for name in FAMILIES} | {("duo", "udlm")}


@pytest.mark.parametrize(("asked", "trained"), sorted(ACCEPTED))
def test_a_network_is_kin_to_its_own_family_and_an_udlm_one_to_duo(asked, trained):
    check_family(ProcessSection(name=asked), told(name=trained), Path("there"))


@pytest.mark.parametrize(
    ("asked", "trained"), sorted(set(itertools.product(FAMILIES, repeat=2)) - ACCEPTED)
)
def test_any_other_network_is_refused_by_name(asked, trained):
    with pytest.raises(UserError) as error:
        check_family(ProcessSection(name=asked), told(name=trained), Path("there"))
    message = f"process.name: {asked!r}, but there was trained with {trained!r}"
    assert str(error.value) == message


@pytest.mark.parametrize("name", ["mdlm", "duo"])
@pytest.mark.parametrize(
    ("asked", "trained", "key"),
    [
        ({}, {"schedule": "cosine"}, "schedule"),
        ({}, {"eps": 2e-3}, "eps"),
        ({"schedule": "cosine"}, {"schedule": "cosine", "eps": 2e-3}, "eps"),
        ({"schedule": "geometric"}, {"schedule": "geometric", "sigma_min": 1e-3}, "sigma_min"),
        ({"schedule": "geometric"}, {"schedule": "geometric", "sigma_max": 9.0}, "sigma_max"),
    ],
)
def test_a_teacher_of_other_noise_is_refused_by_the_key_that_differs(name, asked, trained, key):
    section = ProcessSection(name=name, **asked)
    with pytest.raises(UserError, match=rf"^process\.{key}: .*there was trained with") as error:
        check_family(section, told(name=name, **trained), Path("there"))
    assert repr(getattr(section, key)) in str(error.value)
    assert repr(trained[key]) in str(error.value)


def test_what_the_schedule_is_no_function_of_may_differ():
    other = {"sigma_min": 1.0, "t_min": 0.2, "tau": 0.5, "clock": "loglinear", "gamma_min": -9.0}
    check_family(ProcessSection(name="duo"), told(name="duo", **other), Path("there"))
    geometric = ProcessSection(name="mdlm", schedule="geometric")
    check_family(geometric, told(name="mdlm", schedule="geometric", eps=0.5), Path("there"))


@pytest.mark.parametrize("known", [{}, {"name": "mdlm"}, {"name": "mdlm", "schedule": "cosine"}])
def test_what_a_model_does_not_tell_is_not_held_against_it(known):
    check_family(ProcessSection(name="mdlm", schedule="cosine", eps=0.5), known, Path("there"))


def test_a_card_is_read_without_what_only_its_writer_knows():
    found = {"name": "sedd", "schedule": "geometric", "sigma_max": 5, "nickname": "x"}
    wanted = ProcessSection(name="sedd", schedule="geometric", sigma_max=5.0)
    assert read_family(found, Path("there")) == wanted


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, ["process.name", "missing"]),
        ({"name": "mdml"}, ["process.name", "'mdml'", "mdlm, sedd, udlm, duo"]),
        ({"name": None}, ["process.name", "nothing"]),
        ({"name": ["mdlm"]}, ["process.name", "a list"]),
        ({"name": "mdlm", "schedule": "linear"}, ["process.schedule", "'linear'", "geometric"]),
        ({"name": "duo", "clock": "wall"}, ["process.clock", "'wall'", "gaussian"]),
        ({"name": "mdlm", "eps": "small"}, ["process.eps", "a number", "'small'"]),
        ({"name": "mdlm", "eps": True}, ["process.eps", "a number", "true"]),
        ({"name": "mdlm", "eps": math.nan}, ["process.eps", "finite"]),
        ({"name": "mdlm", "eps": 2}, ["process.eps", "(0, 1)", "2.0"]),
        ({"name": "duo", "gamma_max": -5.0}, ["process.gamma_max", "-3.55"]),
        ({"name": "mdlm\n\tTraceback"}, ["process.name"]),
    ],
    ids=str,
)
def test_a_damaged_card_is_refused_in_one_line(found, words):
    with pytest.raises(UserError) as error:
        read_family(found, Path("there"))
    message = str(error.value)
    assert message.startswith("there: no known family: ")
    assert "\n" not in message
    for word in words:
        assert word in message
