"""In one step, a student with a latent goes below the bound of independent words; no other can."""

from dataclasses import replace

import pytest

from idlm_ds.laboratory.bound import total_correlation
from idlm_ds.laboratory.chain import PartlyMasked, reveal_probabilities
from idlm_ds.laboratory.divergence import divergence, jackknife
from idlm_ds.laboratory.languages import pairs
from idlm_ds.laboratory.latent import LatentChain
from idlm_ds.laboratory.measure import masked_laws
from idlm_ds.laboratory.students import STUDENTS, fitted, masked_process
from idlm_ds.laboratory.training import Training

KINDS = {kind.name: kind for kind in STUDENTS}
LATENT = KINDS["IDLM + z"]


def in_one_step(line: str, language, start, training: Training, *, draws: int = 8192) -> float:
    """KL(truth | law) of a trained student."""
    kind, process = KINDS[line], masked_process(language)
    student = kind.trained(language, start, training).eval()
    if kind.latent:
        chain = LatentChain(PartlyMasked.of(language), process, student, kind.latent)
        estimate = jackknife(language, chain.block_laws(1, count=draws, seed=0))
        return estimate.value + 4 * estimate.se
    return divergence(language, masked_laws(language, student, [1])[1])


def test_only_a_latent_goes_below_the_bound_of_independent_words():
    language = pairs(num_pairs=2, num_words=4)
    bound = total_correlation(language)
    start = fitted(language, masked_process(language), seed=0)
    training = Training(updates=150, batch=128)
    assert in_one_step("IDLM + z", language, start, training) < 0.8 * bound
    # One step of the sampler is not quite one: a ten-thousandth of the words come later.
    slack = bound * (1 - reveal_probabilities(masked_process(language), 1)[0]) * 10
    for line in ("IDLM (= DMD)", "SDTT"):
        kl = in_one_step(line, language, start, replace(training, updates=50))
        assert bound - slack < kl < 1.1 * bound


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_eight_words_in_pairs_take_a_fifth_of_the_bound(seed):
    language = pairs()
    start = fitted(language, masked_process(language), seed=seed)
    training = Training(updates=600, seed=seed)
    kl = in_one_step("IDLM + z", language, start, training, draws=65_536)
    assert kl < total_correlation(language) / 5
