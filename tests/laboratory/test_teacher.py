"""The exact teacher is a denoiser like any network."""

import torch

from idlm_ds.laboratory.languages import copy, pairs
from idlm_ds.laboratory.students import masked_process, uniform_process
from idlm_ds.laboratory.teacher import ExactTeacher
from idlm_ds.noise import Noise
from idlm_ds.objectives.pretrain import Nelbo
from idlm_ds.processes.base import Denoiser, at, each
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.schedules.loglinear import LogLinear
from tests.tolerances import within_standard_errors


def test_all_ends_of_its_head_give_the_log_posterior():
    language = pairs(num_pairs=2, num_words=3)
    process, teacher = masked_process(language), ExactTeacher(language)
    assert isinstance(teacher, Denoiser)
    x_t = torch.tensor([[0, 3, 3, 3], [3, 2, 1, 3]])
    positions, sigma = process.undecided(x_t), torch.zeros(2, dtype=torch.float64)
    expected = language.posterior(x_t).flatten(0, 1)[positions]
    for read in (at(positions), each(torch.clone, positions)):
        answer = process.predict(teacher(x_t, sigma, read))
        torch.testing.assert_close(answer.exp()[:, :-1], expected, rtol=1e-12, atol=1e-12)

    def fused(hidden, weight, bias):
        assert bias is None
        return hidden @ weight.T

    got = teacher(x_t, sigma, lambda head: head.fused(fused, positions))
    torch.testing.assert_close(got[:, :-1].exp(), expected, rtol=1e-12, atol=1e-12)


def test_its_loss_is_the_entropy_of_the_language():
    """The diffusion loss of exact posteriors, summed over time, is the entropy of a sentence."""
    count = 20_000
    for language in (copy(num_words=4, length=3), pairs(num_pairs=2, num_words=3)):
        process = MDLM(language.vocab_size, LogLinear(eps=0.0), language.mask_id)
        times = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        tokens = language.draw(count, generator=torch.Generator().manual_seed(0))
        noise = Noise(range(count))
        nats = Nelbo(process).sequence_nats(ExactTeacher(language), tokens, times, noise=noise)
        se = nats.std().item() / count**0.5
        assert within_standard_errors(nats.mean().item(), language.entropy, se)


def test_in_a_uniform_family_it_is_shown_the_noise_by_sigma():
    language = copy(num_words=3, length=2)
    teacher = ExactTeacher(language, is_masked=False)
    process = uniform_process(language)
    t = torch.tensor([0.25], dtype=torch.float64)
    at_t = process.schedule.at(t)
    answer = process.predict(teacher(torch.tensor([[1, 2]]), at_t.sigma, at(torch.tensor([0]))))
    wrong = at_t.masked.item() / 3
    expected = torch.tensor([[wrong, wrong, 1 - 2 * wrong]], dtype=torch.float64)
    torch.testing.assert_close(answer.exp(), expected, rtol=1e-9, atol=1e-9)
