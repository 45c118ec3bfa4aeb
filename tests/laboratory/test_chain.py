"""Exact laws agree with millions of draws, and bounds with brute force."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from idlm_ds.laboratory.best import best_law, perturbed
from idlm_ds.laboratory.bound import ordered_bound, total_correlation
from idlm_ds.laboratory.chain import PartlyMasked, chain_law, reveal_probabilities
from idlm_ds.laboratory.divergence import divergence, jackknife
from idlm_ds.laboratory.languages import Language, copy, latin, markov, pairs, shuffle
from idlm_ds.laboratory.latent import LatentChain
from idlm_ds.laboratory.measure import masked_laws, uniform_laws
from idlm_ds.laboratory.streams import BatchNoise
from idlm_ds.laboratory.students import masked_process, uniform_process
from idlm_ds.laboratory.teacher import ExactTeacher
from idlm_ds.processes.base import Process, Read
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.tensor_types import LatentInput
from tests.heads import ScoresOf
from tests.tolerances import assert_frequencies

LANGUAGES = {
    "pairs": pairs(num_pairs=2, num_words=2),
    "copy": copy(num_words=3, length=3),
    "shuffle": shuffle(num_words=3),
    "latin": latin(order=2),
    "markov": markov(num_words=4, length=3),
}
STEPS = (1, 2, 3, 8)


@pytest.fixture(params=LANGUAGES.values(), ids=LANGUAGES.keys())
def language(request) -> Language:
    return request.param


class Table(nn.Module):
    """A denoiser with random opinions of every state, and of a latent where it has one."""

    def __init__(self, language: Language, process: Process, *, has_latent: bool = False) -> None:
        super().__init__()
        size = process.vocab_size
        self.radix = size ** torch.arange(language.length)
        generator = torch.Generator().manual_seed(0)
        shape = size**language.length, language.length, size
        self.scores = torch.randn(shape, generator=generator, dtype=torch.float64)
        self.has_latent = has_latent

    def forward(self, x: Tensor | LatentInput, sigma: Tensor, read: Read) -> Tensor:
        assert isinstance(x, LatentInput) == self.has_latent
        tokens = x.x if isinstance(x, LatentInput) else x
        rows = self.scores[(tokens * self.radix).sum(1)]
        if isinstance(x, LatentInput):
            rows = rows + x.z.mean(1, keepdim=True)[..., : rows.shape[2]]
        rows = rows.flatten(0, 1)
        return read(ScoresOf(lambda positions: rows[positions]))


def frequencies(
    language: Language, process: Process, network: Table, steps: int, blocks: int
) -> Tensor:
    """Count every sentence, and last what is none, in draws of the package's own sampler."""
    radix = language.num_words ** torch.arange(language.length)
    codes = (language.sentences * radix).sum(1)
    counts = torch.zeros(language.num_words**language.length)
    for block in range(blocks):
        noise = BatchNoise(5, block, batch=2**15)
        x = process.prior(2**15, language.length, noise=noise)
        drawn = SamplerConfig(steps=steps).draw(process, network, x, noise=noise).tokens
        counts += (drawn * radix).sum(1).bincount(minlength=len(counts))
    known = counts[codes]
    return torch.cat([known, (counts.sum() - known.sum())[None]])


@pytest.mark.parametrize(("steps", "blocks"), [(1, 8), (3, 32)])
def test_laws_of_masked_chains_are_those_of_a_million_draws(steps, blocks):
    language = copy(num_words=2, length=3)
    process = masked_process(language)
    network = Table(language, process)
    (law,) = masked_laws(language, network, [steps]).values()
    counts = frequencies(language, process, network, steps, blocks)
    assert_frequencies(counts, torch.cat([law, 1 - law.sum(0, keepdim=True)]))
    wrong = law * torch.tensor([1.05, 0.95])
    with pytest.raises(AssertionError):
        assert_frequencies(counts, torch.cat([wrong, 1 - wrong.sum(0, keepdim=True)]))


@pytest.mark.parametrize("steps", [1, 2])
def test_laws_of_uniform_chains_are_those_of_draws(steps):
    language = shuffle(num_words=3)
    process = uniform_process(language)
    network = Table(language, process)
    (law,) = uniform_laws(language, network, [steps]).values()
    counts = frequencies(language, process, network, steps, 4)
    assert_frequencies(counts, torch.cat([law, 1 - law.sum(0, keepdim=True)]))


class AsIfOpen(MDLM):
    """A family that lets the latent in until the end, so that all is drawn."""

    def ignorance(self, x_t: Tensor, sigma: Tensor) -> Tensor:
        return torch.ones(x_t.shape)


@pytest.mark.parametrize("is_drawn", [True, False])
def test_estimates_from_draws_agree_with_sums(is_drawn):
    language = shuffle(num_words=3)
    process = masked_process(language)
    if is_drawn:
        process = AsIfOpen(process.vocab_size, process.schedule, process.mask_id)
    network = Table(language, process)
    chain = LatentChain(PartlyMasked.of(language), process, network, latent=0)
    for steps, law in masked_laws(language, network, STEPS).items():
        got = jackknife(language, chain.block_laws(steps, count=2**15, seed=0))
        # One step needs no draws; the sampler's tail makes the difference.
        assert abs(got.value - divergence(language, law)) < 4 * got.se + 1e-3
        assert got.se < 0.02


@pytest.mark.parametrize("steps", [1, 2])
def test_the_law_with_a_latent_is_that_of_draws(steps):
    """Of the package's own sampler, with other numbers."""
    language = copy(num_words=2, length=3)
    process = masked_process(language)
    network = Table(language, process, has_latent=True)
    chain = LatentChain(PartlyMasked.of(language), process, network, latent=3)
    got = jackknife(language, chain.block_laws(steps, count=2**15, seed=0))
    size = 2**17
    noise = BatchNoise(77, batch=size)
    config = SamplerConfig(steps=steps, latent=3)
    x = process.prior(size, 3, noise=noise)
    drawn = config.draw(process, network, x, noise=noise).tokens
    law = torch.stack([(drawn == s).all(1).double().mean() for s in language.sentences])
    assert abs(got.value - divergence(language, law)) < 4 * got.se + 0.02
    # Without its spread, the latent would make independent words.
    (shut,) = chain_law(chain.true_words, [reveal_probabilities(process, steps)])
    assert abs(divergence(language, shut) - got.value) > 0.05


def test_a_sentence_that_no_draw_reaches_makes_the_estimate_infinite():
    language = copy(num_words=2, length=2)
    laws = torch.tensor([[0.5, 0.0], [0.4, 0.0]], dtype=torch.float64)
    got = jackknife(language, laws)
    assert math.isinf(got.value)
    assert math.isnan(got.se)


def test_the_ordered_bound_is_what_brute_force_finds(language):
    """Every order of revealing, and every sentence, one by one."""
    process, steps = masked_process(language), 2
    reveals = reveal_probabilities(process, steps)
    left = 1.0
    chances = []
    for reveal in reveals:
        chances.append(left * reveal)
        left *= 1 - reveal
    assert left == pytest.approx(0.0, abs=1e-12)
    total = 0.0
    for order in product(range(len(reveals)), repeat=language.length):
        when = torch.tensor(order)
        probability = math.prod(chances[step] for step in order)
        law = torch.ones(len(language.sentences), dtype=torch.float64)
        for step in range(len(reveals)):
            x_t = torch.where(when < step, language.sentences, language.mask_id)
            rows = language.posterior(x_t)
            words = rows.gather(2, language.sentences[:, :, None])[..., 0]
            law *= torch.where(when == step, words, 1.0).prod(1)
        total += probability * divergence(language, law)
    assert ordered_bound(language, reveals) == pytest.approx(total, rel=1e-9, abs=1e-12)


def test_the_bound_of_one_step_is_the_total_correlation(language):
    reveals = [1.0]
    bound = ordered_bound(language, reveals)
    assert bound == pytest.approx(total_correlation(language), abs=1e-12)
    space = PartlyMasked.of(language)
    process = masked_process(language)
    exact = space.answers(process, ExactTeacher(language))
    (law,) = chain_law(space.true_words(exact), [reveals])
    assert divergence(language, law) == pytest.approx(bound, abs=1e-12)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        other = perturbed(exact, size=0.5, generator=generator)
        (law,) = chain_law(space.true_words(other), [reveals])
        assert divergence(language, law) > bound + 1e-4


def test_orders_only_help_and_many_steps_reach_the_truth(language):
    process = masked_process(language)
    steps = (1, 2, 4, 16, 512)
    laws = masked_laws(language, ExactTeacher(language), steps)
    kls = [divergence(language, law) for law in laws.values()]
    for count, kl in zip(steps, kls, strict=True):
        assert kl <= ordered_bound(language, reveal_probabilities(process, count)) + 1e-12
    assert kls == sorted(kls, reverse=True)
    assert kls[0] > 0.1
    assert kls[-1] < 0.01


def test_a_planted_wrong_posterior_does_not_reach_the_truth(language):
    process, space = masked_process(language), PartlyMasked.of(language)
    exact = space.answers(process, ExactTeacher(language))
    exact[:, 0, 0] += 5.0
    wrong = exact.log_softmax(-1)
    reveals = [reveal_probabilities(process, 512)]
    (law,) = chain_law(space.true_words(wrong), reveals)
    assert divergence(language, law) > 0.03


def test_many_steps_of_the_uniform_teacher_reach_the_truth():
    language = copy(num_words=3, length=3)
    laws = uniform_laws(language, ExactTeacher(language, is_masked=False), (1, 64))
    kls = [divergence(language, law) for law in laws.values()]
    # Its start is random words, which a step can agree on: no bound of independent words holds.
    assert kls[0] < 0.9 * total_correlation(language)
    assert kls[1] < 0.01


def test_the_search_starts_at_the_teacher_and_only_improves(language):
    process, space = masked_process(language), PartlyMasked.of(language)
    exact = space.answers(process, ExactTeacher(language))
    for steps in (1, 2):
        reveals = reveal_probabilities(process, steps)
        (law,) = chain_law(space.true_words(exact), [reveals])
        teacher = divergence(language, law)
        found = [
            divergence(language, best_law(space, exact, reveals, iterations=count))
            for count in (0, 1, 5, 20)
        ]
        assert found[0] == pytest.approx(teacher, abs=1e-12)
        assert all(b <= a + 1e-9 for a, b in zip(found, found[1:], strict=False))
    if steps == 1:
        assert found[-1] == pytest.approx(teacher, abs=1e-9)


def test_an_order_can_carry_what_a_latent_would():
    """Two chains of one schedule: the better one answers less exactly, and its orders tell more."""
    language = shuffle(num_words=4)
    process, space = masked_process(language), PartlyMasked.of(language)
    exact = space.answers(process, ExactTeacher(language))
    reveals = reveal_probabilities(process, 2)
    (law,) = chain_law(space.true_words(exact), [reveals])
    start = perturbed(exact, size=1.0, generator=torch.Generator().manual_seed(0))
    found = divergence(language, best_law(space, start, reveals, iterations=60))
    assert found < 0.7 * divergence(language, law)
