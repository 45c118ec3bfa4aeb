import pytest

from idlm_ds.recipes.batch import accumulation
from idlm_ds.recipes.errors import RecipeError


@pytest.mark.parametrize(("micro", "world", "passes"), [(8, 2, 2), (32, 1, 1), (1, 1, 32)])
def test_accumulation_times_micro_batch_times_world_is_the_global_batch(micro, world, passes):
    assert accumulation(global_batch=32, micro_batch=micro, world=world) == passes


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        (
            (32, 12, 2),
            "train.global_batch: 32 is not a multiple of train.micro_batch 12 × 2 processes; "
            "nearest: 24 or 48",
        ),
        (
            (10, 4, 1),
            "train.global_batch: 10 is not a multiple of train.micro_batch 4 × 1 process; "
            "nearest: 8 or 12",
        ),
        (
            (4, 4, 8),
            "train.global_batch: 4 is not a multiple of train.micro_batch 4 × 8 processes; "
            "nearest: 32",
        ),
        ((0, 1, 1), "train.global_batch: must be at least 1, got 0"),
        ((8, -2, 1), "train.micro_batch: must be at least 1, got -2"),
        ((8, 2, 0), "world: must be at least 1, got 0"),
    ],
)
def test_batches_that_do_not_fit_are_refused_with_the_nearest_that_do(counts, line):
    global_batch, micro, world = counts
    with pytest.raises(RecipeError) as caught:
        accumulation(global_batch=global_batch, micro_batch=micro, world=world)
    assert str(caught.value) == line
