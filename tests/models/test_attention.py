import torch

from idlm_ds.models.attention import attend

from ..tolerances import assert_close


def test_attention_is_a_softmax_over_all_positions(generator):
    q, k, v = torch.randn(3, 2, 3, 5, 4, generator=generator)
    weights = (q @ k.transpose(-1, -2) / 4**0.5).softmax(-1)
    assert_close(attend(q, k, v), weights @ v)


def test_equal_keys_give_the_mean_of_the_values(generator):
    q, v = torch.randn(2, 1, 2, 6, 4, generator=generator)
    mean = v.mean(2, keepdim=True).expand_as(v)
    assert_close(attend(q, torch.ones_like(q), v), mean)
