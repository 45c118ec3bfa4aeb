import pytest
import torch

from idlm_ds.noise import Noise
from idlm_ds.processes.base import Process
from idlm_ds.processes.duo import Duo
from idlm_ds.processes.latent import draw_latent, show_latent
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.sedd import SEDD
from idlm_ds.processes.udlm import UDLM
from idlm_ds.schedules.gaussian import GaussianMap, TokenClock
from idlm_ds.schedules.loglinear import LogLinear
from idlm_ds.tensor_types import LatentInput

V, MASK, LENGTH = 5, 4, 4
MASKED = [MDLM(V, LogLinear(), MASK), SEDD(V, LogLinear(), MASK)]
UNIFORM = [UDLM(V, LogLinear()), Duo(V, LogLinear(), TokenClock(GaussianMap(V), LogLinear()))]
ROWS = torch.tensor([[4, 4, 4, 4], [4, 2, 4, 4], [0, 4, 1, 4], [4, 0, 1, 2], [0, 1, 2, 3]])


def name(process: Process) -> str:
    return type(process).__name__


@pytest.mark.parametrize("process", MASKED, ids=name)
def test_the_gate_of_a_masked_state_is_how_far_more_than_half_of_it_is_masked(process):
    gate = process.ignorance(ROWS, torch.full((5,), 0.3))
    expected = [[1, 1, 1, 1], [0.5, 0, 0.5, 0.5], [0] * 4, [0] * 4, [0] * 4]
    assert gate.tolist() == expected


@pytest.mark.parametrize("process", UNIFORM, ids=name)
def test_the_gate_of_a_uniform_state_follows_from_its_time_alone(process):
    sigma = -torch.tensor([1e-9, 0.125, 0.5, 0.75, 1.0], dtype=torch.float64).log()
    gate = process.ignorance(ROWS, sigma)
    assert gate[:, 0].tolist() == pytest.approx([1, 0.75, 0, 0, 0], abs=1e-8)
    assert gate.equal(gate[:, :1].expand(5, LENGTH))
    assert (process.ignorance(ROWS, torch.full((5,), torch.inf)) == 1).all()


@pytest.mark.parametrize("process", [*MASKED, *UNIFORM], ids=name)
def test_a_latent_is_shown_in_proportion_to_the_gate(process):
    sigma = process.schedule.at(torch.linspace(1, 0.2, 5, dtype=torch.float64)).sigma
    z = torch.ones(5, LENGTH, 3)
    shown = show_latent(process, ROWS, z, x_t=ROWS, sigma=sigma)
    assert isinstance(shown, LatentInput)
    assert shown.x is ROWS
    assert shown.shape == ROWS.shape
    gate = process.ignorance(ROWS, sigma)
    assert shown.z.equal(gate[..., None].expand(5, LENGTH, 3))
    some = torch.tensor([3, 0])
    assert shown[some].x.equal(ROWS[some])
    assert shown[some].z.equal(shown.z[some])


def test_no_latent_draws_nothing_and_leaves_the_input_as_it_is():
    noise = Noise([1, 2])
    untouched = noise.copy()
    assert draw_latent(0, LENGTH, noise=noise) is None
    assert noise.uniform(3).equal(untouched.uniform(3))
    assert show_latent(MASKED[0], ROWS, None, x_t=ROWS, sigma=torch.zeros(5)) is ROWS


def test_a_latent_is_standard_normal_and_belongs_to_its_sequence():
    z = draw_latent(8, 64, noise=Noise.of_samples(0, "z", samples=range(50)))
    assert z.shape == (50, 64, 8)
    flat = z.double().flatten(0, 1)
    # Standard errors of a mean, a variance and a covariance of 3,200 numbers.
    assert flat.mean(0).abs().max() < 4 / 3200**0.5
    covariance = flat.T @ flat / len(flat)
    assert (covariance - torch.eye(8)).abs().max() < 4 * (2 / 3200) ** 0.5
    assert (flat.abs() < 1).double().mean().item() == pytest.approx(0.6827, abs=0.012)
    alone = draw_latent(8, 64, noise=Noise.of_samples(0, "z", samples=[7, 3]))
    assert alone.equal(z[[7, 3]])
