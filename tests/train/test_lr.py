import pytest

from idlm_ds.train.lr import LearningRate


def rates(rate: LearningRate) -> list[float]:
    return [rate.at(count) for count in range(rate.total)]


def test_warm_up_plateau_and_fall_by_hand():
    rate = LearningRate(peak=1.0, total=10, warmup_steps=4, decay_fraction=0.4)
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    assert rates(rate) == pytest.approx(expected, abs=1e-12)
    assert rate.at(10) == 0


def test_published_warm_up_of_2500_updates():
    rate = LearningRate(peak=3e-4, total=1_000_000, warmup_steps=2500)
    assert rate.at(0) == pytest.approx(3e-4 / 2500)
    assert rate.at(1249) == pytest.approx(1.5e-4)
    assert rate.at(2499) == rate.at(2500) == rate.at(999_999) == 3e-4


def test_without_warm_up_and_fall_the_rate_is_its_peak():
    assert rates(LearningRate(peak=0.2, total=5)) == [0.2] * 5


def test_a_run_that_is_all_fall_goes_from_the_peak_to_its_last_share():
    rate = LearningRate(peak=1.0, total=4, decay_fraction=1.0)
    assert rates(rate) == pytest.approx([1.0, 0.75, 0.5, 0.25])


def test_where_warm_up_and_fall_overlap_the_lower_one_holds():
    rate = LearningRate(peak=1.0, total=4, warmup_steps=4, decay_fraction=1.0)
    assert rates(rate) == pytest.approx([0.25, 0.5, 0.5, 0.25])


def test_the_rate_is_never_negative_after_the_end():
    assert LearningRate(peak=1.0, total=4, decay_fraction=0.5).at(9) == 0
