"""How often a rare token wins. Draws of each kind at ordinary rates are in ``test_reverse``."""

import math

import pytest
import torch
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.samplers.reference import ReferenceStep
from idlm_ds.schedules.loglinear import LogLinear

from ..heads import answering
from ..tolerances import assert_close, within_standard_errors

COMMON, RARE, MASK = 0, 1, 2
POSITIONS = 400_000
STEPS = 512
T, S = 0.5, 0.5 - 0.5 / STEPS
"""One of 512 equal steps from t=0.5: a masked position is revealed once in 512 times."""

DELTA = 2.0**-24
"""Spacing of float32 uniforms below 1, and so of the smallest race times ``-log u``."""

PROCESS = MDLM(vocab_size=3, schedule=LogLinear(0.0), mask_id=MASK)


class Zoomed(Noise):
    """Draws only the random numbers with which a rare token may win: ``width`` of all of them.

    They are those of the real generator, on its grid, given that they lie there; how often the
    token wins has to be multiplied by ``width``.
    """

    def __init__(self, rate: float) -> None:
        super().__init__([0])
        self._rate = rate
        self.width = 0.0

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        generator = self._generators[0]
        if dtype == torch.float64:
            return self._around_the_rare_token(shape)
        u = torch.rand((1, *shape), generator=generator, dtype=dtype)
        # The others take at most -log 1e-10 = 23 mean times to win; beyond that this one cannot.
        last = math.ceil(32 * self._rate / DELTA)
        self.width = last * DELTA
        below_one = torch.randint(1, last + 1, (1, shape[0]), generator=generator)
        u[..., RARE] = 1 - DELTA * below_one
        return u

    def _around_the_rare_token(self, shape: tuple[int, ...]) -> Tensor:
        """Numbers near where the cumulative distribution passes from common to rare."""
        grid = 2.0**-53
        middle, half = (1 / STEPS - self._rate) / grid, math.ceil(32 * self._rate / grid)
        self.width = 2 * half * grid
        u = torch.randint(-half, half, (1, *shape), generator=self._generators[0])
        return (u + round(middle)).double() * grid


def wins(rate: float, precision: str) -> tuple[float, float]:
    """How often a token of that probability is drawn over how often it should be, and the error."""
    answer = torch.tensor([1 - rate * STEPS, rate * STEPS, 1.0], dtype=torch.float64)
    noise = Zoomed(rate)
    x = torch.full((1, POSITIONS), MASK)
    t, s = (torch.tensor([u], dtype=torch.float64) for u in (T, S))
    dense = ReferenceStep(PROCESS, precision)
    x_s = dense(x, t, s, answering(lambda p: answer.log().expand(len(p), 3)), noise=noise)
    scale = noise.width / rate / POSITIONS
    count = (x_s == RARE).sum().item()
    return count * scale, math.sqrt(count) * scale


@pytest.mark.parametrize("rate_over_delta", [0.25, 1, 5, 50])
def test_float32_suppresses_rare_tokens_at_the_predicted_rate(rate_over_delta):
    got, se = wins(rate_over_delta * DELTA, "float32")
    predicted = (1 / rate_over_delta) / math.expm1(1 / rate_over_delta)
    assert se < 0.05 * predicted
    assert within_standard_errors(got, predicted, se)


def test_float32_never_draws_a_token_much_rarer_than_its_grid():
    got, _ = wins(DELTA / 10, "float32")
    assert got < 2e-3


@pytest.mark.parametrize("rate_over_delta", [1e-4, 0.1, 0.25, 1, 5, 50])
def test_float64_draws_tokens_as_often_as_it_should(rate_over_delta):
    got, se = wins(rate_over_delta * DELTA, "float64")
    assert se < 0.02
    assert within_standard_errors(got, 1.0, se)


@pytest.mark.parametrize("rate_over_delta", [1e-4, 1])
def test_a_factorised_step_draws_rare_tokens_as_often_as_it_should(rate_over_delta):
    share = rate_over_delta * DELTA * STEPS
    answer = torch.tensor([1 - share, share, 1.0], dtype=torch.float64)

    class Revealing(Noise):
        """Reveals every position, then zooms in on the word."""

        def __init__(self) -> None:
            super().__init__([0])
            self.draws = 0

        def uniform(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
            assert dtype == torch.float64
            self.draws += 1
            u = torch.rand((1, *shape), generator=self._generators[0], dtype=dtype)
            return 0 * u if self.draws == 1 else 1 - share * (64 * u - 32).abs()

    x = torch.full((1, POSITIONS), MASK)
    t, s = (torch.tensor([u], dtype=torch.float64) for u in (T, S))
    noise = Revealing()
    x_s = PROCESS.step(x, t, s, answering(lambda p: answer.log().expand(len(p), 3)), noise=noise)
    count = (x_s == RARE).sum().item()
    assert noise.draws == 2
    assert within_standard_errors(count * 32 / POSITIONS, 1.0, 32 * math.sqrt(count) / POSITIONS)


def test_a_zoomed_draw_has_the_rate_of_an_ordinary_one_where_both_can_be_seen():
    rate, answer = 1 / 1024, torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64)
    x = torch.full((1, POSITIONS), MASK)
    t, s = (torch.tensor([u], dtype=torch.float64) for u in (T, S))
    for precision in ("float32", "float64"):
        x_s = ReferenceStep(PROCESS, precision)(
            x, t, s, answering(lambda p: answer.log().expand(len(p), 3)), noise=Noise([5])
        )
        count = (x_s == RARE).sum().item()
        se = math.sqrt(POSITIONS * rate)
        assert within_standard_errors(count, POSITIONS * rate, se)


def test_the_rare_token_is_as_rare_as_it_is_said_to_be():
    rate = DELTA
    answer = torch.tensor([1 - rate * STEPS, rate * STEPS, 1.0], dtype=torch.float64)
    t, s = (torch.tensor([u], dtype=torch.float64) for u in (T, S))
    row = PROCESS.reverse(answer.log()[None], torch.tensor([[MASK]]), t, s, torch.tensor([0]))
    expected = torch.tensor([1 / STEPS - rate, rate, 1 - 1 / STEPS], dtype=torch.float64)
    assert_close(row[0], expected)
    assert row[0, RARE].item() == pytest.approx(rate, rel=1e-9)
