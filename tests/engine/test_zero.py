"""Whether two networks are cut alike has one answer on all ranks."""

from types import SimpleNamespace

import pytest
import torch

from idlm_ds.engine.zero import are_cut_alike

RANKS = 9
WHOLE = SimpleNamespace()


def cut(sharing: int) -> SimpleNamespace:
    """A parameter that so many ranks share."""
    return SimpleNamespace(ds_tensor=None, ds_process_group=sharing)


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        (WHOLE, WHOLE, True),
        (cut(RANKS), cut(RANKS), True),
        (cut(RANKS), WHOLE, False),
        (WHOLE, cut(RANKS), False),
        # Hosts of 8 and 1: parts of the first happen to be those of all ranks for some sizes.
        (cut(8), cut(RANKS), False),
        (cut(1), cut(RANKS), False),
        (cut(8), cut(8), False),
    ],
)
def test_networks_are_cut_alike_where_every_rank_says_so(first, second, alike, monkeypatch):
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group=RANKS: group)
    assert are_cut_alike(first, second) is alike
