import pytest
import torch
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Read
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.samplers.batched import sample_batched
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.samplers.reverse import Sampled, sample_reverse
from idlm_ds.samplers.truncation import Truncation
from idlm_ds.schedules.loglinear import LogLinear
from tests.heads import ScoresOf

V, MASK, LENGTH, STEPS = 12, 11, 9, 3
PROCESS = MDLM(vocab_size=V, schedule=LogLinear(eps=1e-3), mask_id=MASK)


class Counting:
    """A denoiser that likes words near the mean of what it sees, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor, sigma: Tensor, read: Read, /) -> Tensor:
        del sigma
        self.calls += 1
        distance = torch.arange(V) - x.double().mean(1, keepdim=True)
        return read(ScoresOf(lambda positions: -distance[positions // LENGTH].abs()))


def draw(
    samples: range, *, batch: int, stream: str = "eval", temperature: float = 1.0, **more: object
) -> Sampled:
    return sample_batched(
        PROCESS,
        more.pop("denoiser", Counting()),
        samples,
        SamplerConfig(steps=STEPS, temperature=temperature),
        length=LENGTH,
        seed=5,
        stream=stream,
        batch=batch,
        **more,
    )


def test_a_set_is_a_run_of_the_sampler_on_streams_named_by_their_index():
    noise = Noise.of_samples(5, "eval", samples=range(3, 7))
    start = PROCESS.prior(4, LENGTH, noise=noise)
    times, truncation = uniform_grid(STEPS), Truncation(PROCESS, temperature=0.7)
    expected = sample_reverse(
        PROCESS, PROCESS.step, Counting(), start, times, noise=noise, truncation=truncation
    )
    got = draw(range(3, 7), batch=4, temperature=0.7)
    assert got.tokens.equal(expected.tokens)
    assert got.evaluations.equal(expected.evaluations)


@pytest.mark.parametrize("batch", [1, 2, 3, 50])
def test_a_set_is_the_same_in_any_batches_and_on_any_number_of_ranks(batch):
    whole = draw(range(7), batch=7)
    split = draw(range(7), batch=batch)
    assert split.tokens.equal(whole.tokens)
    assert split.evaluations.equal(whole.evaluations)
    for rank in range(2):
        local = draw(range(rank, 7, 2), batch=batch)
        assert local.tokens.equal(whole.tokens[rank::2])
        assert local.evaluations.equal(whole.evaluations[rank::2])


def test_two_streams_of_one_seed_are_two_sets():
    assert not draw(range(4), batch=4).tokens.equal(draw(range(4), batch=4, stream="b").tokens)


def test_a_set_of_none_calls_no_network():
    denoiser = Counting()
    drawn = draw(range(0), batch=2, denoiser=denoiser)
    assert (denoiser.calls, drawn.tokens.shape, len(drawn.evaluations)) == (0, (0, LENGTH), 0)


@pytest.mark.parametrize("batch", [1, 2, 5, 50])
def test_a_watcher_knows_which_samples_a_step_is_about(batch):
    samples, states, steps = range(3, 14, 2), {}, []

    def on_step(which, k, t, x_t, revealed):
        assert len(which) == len(x_t) == len(revealed) <= batch
        steps.append((tuple(which), k, t))
        states.update(zip(which, x_t, strict=True))

    watched = draw(samples, batch=batch, on_step=on_step)
    plain = draw(samples, batch=batch)
    assert watched.tokens.equal(plain.tokens)
    assert watched.evaluations.equal(plain.evaluations)
    parts = [tuple(samples[i : i + batch]) for i in range(0, len(samples), batch)]
    grid = uniform_grid(STEPS)[1:].tolist()
    assert steps == [(part, k, t) for part in parts for k, t in enumerate(grid)]
    assert torch.stack([states[i] for i in samples]).equal(plain.tokens)
