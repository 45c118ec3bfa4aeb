import pytest
import torch
from torch import Tensor

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Read
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.udlm import UDLM
from idlm_ds.samplers.ancestral import sample_ancestral
from idlm_ds.samplers.batched import sample_batched
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.samplers.grid import uniform_grid
from idlm_ds.samplers.reverse import Sampled
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
    expected = sample_ancestral(
        PROCESS, Counting(), start, uniform_grid(STEPS), noise=noise, temperature=0.7
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
        mine = draw(range(rank, 7, 2), batch=batch, num_batches=5)
        assert mine.tokens.equal(whole.tokens[rank::2])
        assert mine.evaluations.equal(whole.evaluations[rank::2])


def test_two_streams_of_one_seed_are_two_sets():
    assert not draw(range(4), batch=4).tokens.equal(draw(range(4), batch=4, stream="b").tokens)


@pytest.mark.parametrize("samples", [range(0), range(2), range(6)])
def test_ranks_with_fewer_samples_call_the_network_as_often(samples):
    denoiser = Counting()
    drawn = draw(samples, batch=2, num_batches=3, denoiser=denoiser)
    assert denoiser.calls == 3 * (STEPS + 1)
    assert drawn.tokens.shape == (len(samples), LENGTH)
    assert len(drawn.evaluations) == len(samples)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_set_says_in_what_precision_it_was_drawn(precision):
    uniform = UDLM(vocab_size=V, schedule=LogLinear(eps=1e-3))
    for process in (PROCESS, uniform):
        drawn = sample_batched(
            process,
            Counting(),
            range(3),
            SamplerConfig(steps=STEPS, precision=precision),
            length=LENGTH,
            seed=5,
            stream="eval",
            batch=2,
        )
        assert drawn.dtypes == {getattr(torch, precision)}
