import math

import torch

from idlm_ds.kernels.rope import rope
from idlm_ds.models.rotary import rotary_angles

from ..tolerances import assert_close

CPU = torch.device("cpu")


def test_a_pair_turns_by_its_position_times_its_frequency():
    cos, sin = rotary_angles(4, 6, device=CPU)
    for pair, frequency in enumerate([1.0, 1e4 ** (-2 / 6), 1e4 ** (-4 / 6)]):
        unit = torch.zeros(1, 1, 4, 6)
        unit[..., pair] = 1
        turned = rope(unit, cos, sin)[0, 0]
        for position in range(4):
            expected = torch.zeros(6)
            expected[pair] = math.cos(position * frequency)
            expected[pair + 3] = math.sin(position * frequency)
            assert_close(turned[position], expected)


def test_dot_products_depend_on_distance_only(generator):
    length, width = 12, 8
    cos, sin = rotary_angles(length, width, device=CPU)
    query, key = torch.randn(2, width, generator=generator)
    queries = rope(query.expand(1, 1, length, width), cos, sin)[0, 0]
    keys = rope(key.expand(1, 1, length, width), cos, sin)[0, 0]
    products = queries @ keys.T
    for distance in range(1 - length, length):
        diagonal = products.diagonal(distance)
        assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert abs(products[0, 0] - products[0, 1]) > 0.1


def test_rotation_keeps_lengths_and_leaves_position_zero_alone(generator):
    x = torch.randn(2, 3, 5, 8, generator=generator)
    turned = rope(x, *rotary_angles(5, 8, device=CPU))
    assert turned[:, :, 0].equal(x[:, :, 0])
    assert_close(turned.norm(dim=-1), x.norm(dim=-1))
