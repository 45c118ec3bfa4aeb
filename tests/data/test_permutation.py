import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idlm_ds.data.permutation import permute
from tests.data.toy import cases


@cases(300)
@given(count=st.integers(1, 700), seed=st.integers(0, 2**63 - 1))
def test_every_place_is_taken_once(count, seed):
    order = permute(np.arange(count), count, seed)
    assert sorted(order.tolist()) == list(range(count))


@cases(100)
@given(
    count=st.integers(1, 10**12), seed=st.integers(0, 2**63 - 1), numbers=st.lists(st.integers(0))
)
def test_a_place_depends_on_nothing_else_that_is_asked_for(count, seed, numbers):
    index = np.array([i % count for i in numbers], dtype=np.int64)
    together = permute(index, count, seed)
    assert ((together >= 0) & (together < count)).all()
    alone = [int(permute(np.array([i]), count, seed)[0]) for i in index]
    assert together.tolist() == alone


def test_the_order_is_the_same_on_every_machine():
    assert permute(np.arange(10), 10, 7).tolist() == [6, 7, 0, 5, 4, 3, 8, 2, 9, 1]


def test_another_seed_is_another_order():
    orders = {tuple(permute(np.arange(50), 50, seed).tolist()) for seed in range(200)}
    assert len(orders) == 200


def test_three_things_come_in_each_of_their_six_orders_equally_often():
    seen = [tuple(permute(np.arange(3), 3, seed).tolist()) for seed in range(1800)]
    counts = [seen.count(order) for order in sorted(set(seen))]
    assert len(counts) == 6
    # 300 expected; the standard deviation is 16.
    assert max(abs(count - 300) for count in counts) < 64


@pytest.mark.parametrize("count", [1000, 4097])
def test_neighbours_are_torn_apart_as_by_a_fair_shuffle(count):
    steps = np.concatenate(
        [np.abs(np.diff(permute(np.arange(count), count, seed))) for seed in range(40)]
    )
    # Two different places drawn at random are (count + 1) / 3 apart on average.
    expected = (count + 1) / 3
    deviation = np.sqrt(count**2 / 18 / len(steps))
    assert abs(steps.mean() - expected) < 4 * deviation


def test_where_a_thing_goes_is_uniform_over_seeds():
    places = np.array([int(permute(np.array([5]), 20, seed)[0]) for seed in range(2000)])
    counts = np.bincount(places, minlength=20)
    chi_squared = ((counts - 100) ** 2 / 100).sum()
    assert chi_squared < 43.8  # one in a thousand with 19 degrees of freedom
