import pytest

from idlm_ds.objectives.alternation import Alternation, Phase, Single


def test_the_fake_goes_first_and_the_student_follows():
    two = Alternation(fake_steps=2)
    assert [two.phase(step) for step in range(7)] == [
        Phase.FAKE,
        Phase.FAKE,
        Phase.STUDENT,
        Phase.FAKE,
        Phase.FAKE,
        Phase.STUDENT,
        Phase.FAKE,
    ]
    assert [Alternation().phase(step) for step in range(3)] == [
        Phase.FAKE,
        Phase.STUDENT,
        Phase.FAKE,
    ]


@pytest.mark.parametrize("fake_steps", [1, 2, 3, 5, 10])
def test_updates_are_the_phases_counted_one_by_one(fake_steps):
    alternation = Alternation(fake_steps=fake_steps)
    counted = {Phase.FAKE: 0, Phase.STUDENT: 0}
    for step in range(60):
        for phase, count in counted.items():
            assert alternation.updates(phase, step) == count
        counted[alternation.phase(step)] += 1


@pytest.mark.parametrize("fake_steps", [1, 2, 7])
def test_a_cycle_holds_one_student_phase(fake_steps):
    alternation = Alternation(fake_steps=fake_steps)
    for start in range(2 * alternation.cycle):
        phases = [alternation.phase(start + i) for i in range(alternation.cycle)]
        assert phases.count(Phase.STUDENT) == 1
        assert alternation.phase(start) is alternation.phase(start + alternation.cycle)


@pytest.mark.parametrize("fake_steps", [0, -1])
def test_a_fake_that_never_learns_is_refused(fake_steps):
    with pytest.raises(ValueError, match=f"fake_steps must be at least 1, got {fake_steps}"):
        Alternation(fake_steps=fake_steps)


def test_pretraining_has_one_phase_and_every_step_is_an_update():
    single = Single()
    assert single.cycle == 1
    assert [single.phase(step) for step in (0, 1, 9)] == [Phase.PRETRAIN] * 3
    assert [single.updates(Phase.PRETRAIN, step) for step in (0, 1, 9)] == [0, 1, 9]
