import math
from itertools import product

import pytest
import torch
from torch import Tensor

from idlm_ds.metrics.gradient_distance import gradient_distance

from ..tolerances import within_standard_errors
from .judges import bigram_judge

V = 3
TABLE = torch.tensor([[0.0, 1.0, -1.0], [0.5, 0.0, 2.0], [-0.5, 0.25, 1.0]])


def gradient(text: str) -> Tensor:
    """By hand: each scored token adds its one-hot less the softmax to the row before it.

    A later EOS (0) is not scored.
    """
    ids = [int(word) for word in text.split()]
    total, count, seen_eos = torch.zeros(V, V, dtype=torch.float64), 0, ids[:1].count(0)
    for before, token in zip(ids[:-1], ids[1:], strict=True):
        seen_eos += token == 0
        if token == 0 and seen_eos > 1:
            continue
        total[before] -= TABLE[before].double().softmax(-1)
        total[before, token] += 1
        count += 1
    return total.flatten() / count


def mean_gradient(texts: list[str]) -> Tensor:
    return torch.stack([gradient(text) for text in texts]).mean(dim=0)


REAL = ["1 2 1", "2 2", "1 0 1 0 2", "2 1 1 2", "1 1"]
SAMPLES = ["1 1 1 1", "0 2", "2 0 0", "1 2"]


def test_two_groups_give_the_product_of_their_differences():
    distance = gradient_distance(bigram_judge(TABLE), REAL, SAMPLES, groups=2)
    even = mean_gradient(SAMPLES[0::2]) - mean_gradient(REAL[0::2])
    odd = mean_gradient(SAMPLES[1::2]) - mean_gradient(REAL[1::2])
    assert distance.value == pytest.approx((even @ odd).item(), rel=1e-5)
    assert distance.plug_in == pytest.approx(((even + odd) / 2).square().sum().item(), rel=1e-5)
    assert math.isnan(distance.se)
    assert distance.to_json()["se"] is None
    assert (distance.num_real, distance.num_samples, distance.judge) == (5, 4, "bigram")


def test_more_groups_give_the_mean_over_their_pairs():
    real, samples = REAL * 2, SAMPLES * 2
    distance = gradient_distance(bigram_judge(TABLE), real, samples, groups=4)
    d = [mean_gradient(samples[k::4]) - mean_gradient(real[k::4]) for k in range(4)]
    pairs = [(d[j] @ d[k]).item() for j in range(4) for k in range(j)]
    assert distance.value == pytest.approx(sum(pairs) / 6, rel=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_distance_does_not_depend_on_the_batch(batch):
    judge = bigram_judge(TABLE)
    expected = gradient_distance(judge, REAL * 3, SAMPLES * 3, groups=3, batch=100)
    distance = gradient_distance(judge, REAL * 3, SAMPLES * 3, groups=3, batch=batch)
    assert distance.value == pytest.approx(expected.value, rel=1e-5)
    assert distance.se == pytest.approx(expected.se, rel=1e-5)


def test_texts_that_score_nothing_are_left_out():
    judge = bigram_judge(TABLE)
    distance = gradient_distance(judge, ["", *REAL, "1"], [*SAMPLES, "0"], groups=2)
    assert distance.value == gradient_distance(judge, REAL, SAMPLES, groups=2).value
    assert (distance.num_real, distance.num_samples) == (5, 4)


def test_the_mask_decides_what_is_scored():
    judge = bigram_judge(TABLE)
    cut = [text.replace("1 0 1 0 2", "1 0") for text in REAL]
    strict = gradient_distance(judge, REAL, SAMPLES[:2] * 2, groups=2, masking="strict")
    assert strict.value == pytest.approx(
        gradient_distance(judge, cut, SAMPLES[:2] * 2, groups=2, masking="strict").value, rel=1e-5
    )


WORLD = [f"1 {a} {b}" for a, b in product((1, 2), repeat=2)]


def draw(probs: Tensor, count: int, generator: torch.Generator) -> list[str]:
    return [WORLD[i] for i in torch.multinomial(probs, count, True, generator=generator)]


@pytest.mark.parametrize("tilt", [0.0, 0.6])
def test_the_estimate_is_unbiased_and_the_plug_in_is_not(tilt, generator):
    judge = bigram_judge(TABLE)
    of_real = torch.full((4,), 0.25)
    of_samples = of_real + tilt * torch.tensor([0.25, -0.1, -0.15, 0.0])
    exact = sum(
        (q - p) * gradient(text) for p, q, text in zip(of_real, of_samples, WORLD, strict=True)
    )
    distance = exact.square().sum().item()
    distances = [
        gradient_distance(
            judge, draw(of_real, 12, generator), draw(of_samples, 12, generator), groups=4
        )
        for _ in range(120)
    ]
    values = torch.tensor([distance.value for distance in distances], dtype=torch.float64)
    se = values.std().item() / math.sqrt(len(values))
    assert within_standard_errors(values.mean().item(), distance, se)
    plug_in = torch.tensor([distance.plug_in for distance in distances]).mean().item()
    assert plug_in > distance + 4 * se
    # Where the distance is small the jackknife is too careful, by less than a factor of 3.
    variance = torch.tensor([distance.se**2 for distance in distances]).mean().item()
    assert 0.8 < variance / values.var().item() < 3


def test_the_judge_is_left_as_it_was():
    judge = bigram_judge(TABLE)
    with torch.inference_mode():
        judge.score(REAL)
    gradient_distance(judge, REAL, SAMPLES, groups=2)
    assert [(p.requires_grad, p.grad) for p in judge.model.parameters()] == [(False, None)]


def test_groups_that_cannot_be_filled_are_refused():
    judge = bigram_judge(TABLE)
    with pytest.raises(ValueError, match="groups=1"):
        gradient_distance(judge, REAL, SAMPLES, groups=1)
    with pytest.raises(ValueError, match="5 real texts and 4 samples with a scored"):
        gradient_distance(judge, REAL, SAMPLES, groups=5)
