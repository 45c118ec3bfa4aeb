import math

import pytest
import torch
from torch import Tensor

from idlm_ds.processes.base import Process
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.processes.sedd import SEDD
from idlm_ds.processes.udlm import UDLM
from idlm_ds.samplers.truncation import Truncation
from idlm_ds.schedules.loglinear import LogLinear

from ..tolerances import assert_close

V, MASK = 6, 2
WORDS = [0, 1, 3, 4, 5]
UNIFORM = UDLM(vocab_size=V, schedule=LogLinear())
MASKED = [c(vocab_size=V, schedule=LogLinear(), mask_id=MASK) for c in (MDLM, SEDD)]
families = pytest.mark.parametrize("process", [*MASKED, UNIFORM], ids=["mdlm", "sedd", "udlm"])
masked = pytest.mark.parametrize("process", MASKED, ids=["mdlm", "sedd"])


def random_scores(generator: torch.Generator, rows: int = 200) -> Tensor:
    return 3 * torch.randn(rows, V, generator=generator, dtype=torch.float64)


def answers(process: Process, raw: Tensor, **settings: float) -> Tensor:
    """Probabilities of the clean token after truncation."""
    return process.predict(Truncation(process, **settings)(raw.clone())).exp()


def log(*probs: float) -> Tensor:
    return torch.tensor([probs], dtype=torch.float64).clamp(min=1e-300).log()


@pytest.mark.parametrize(
    ("nucleus", "expected"),
    [
        (1.0, [0.1, 0.2, 0.0, 0.4, 0.05, 0.25]),
        (0.96, [0.1, 0.2, 0.0, 0.4, 0.05, 0.25]),
        (0.94, [0.1 / 0.95, 0.2 / 0.95, 0.0, 0.4 / 0.95, 0.0, 0.25 / 0.95]),
        (0.66, [0.0, 0.2 / 0.85, 0.0, 0.4 / 0.85, 0.0, 0.25 / 0.85]),
        (0.64, [0.0, 0.0, 0.0, 0.4 / 0.65, 0.0, 0.25 / 0.65]),
        (0.39, [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
        (1e-12, [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
    ],
)
@families
def test_a_nucleus_keeps_the_smallest_set_of_likeliest_tokens_that_reaches_it(
    process, nucleus, expected
):
    raw = log(0.1, 0.2, 0.0, 0.4, 0.05, 0.25) + 3.7
    got = answers(process, raw, nucleus=nucleus)
    torch.testing.assert_close(got[0].tolist(), expected, rtol=1e-12, atol=1e-250)


@families
@pytest.mark.parametrize("nucleus", [1e-300, 1e-9, 0.1, 0.5, 0.99])
def test_the_likeliest_token_is_always_kept_and_the_others_keep_their_proportions(
    process, nucleus, generator
):
    raw = random_scores(generator)
    whole, cut = answers(process, raw), answers(process, raw, nucleus=nucleus)
    assert cut.argmax(1).equal(whole.argmax(1))
    is_kept = cut > 0
    kept_mass = (whole * is_kept).sum(1, keepdim=True)
    assert (kept_mass >= nucleus).all()
    assert_close(cut, whole * is_kept / kept_mass)
    # Minimal: without its least likely member the set would not reach the nucleus.
    least = torch.where(is_kept, whole, 2.0).amin(1, keepdim=True)
    assert (kept_mass - least < nucleus).all()


@families
def test_of_equally_likely_tokens_the_first_ids_are_kept(process):
    got = answers(process, torch.zeros(1, V, dtype=torch.float64), nucleus=0.5)
    ids = torch.arange(V) if process is UNIFORM else torch.tensor(WORDS)
    assert got[0].nonzero()[:, 0].equal(ids[:3])


@families
def test_what_is_cut_is_an_answer_that_normalising_does_not_change(process, generator):
    for settings in ({"nucleus": 0.6}, {"temperature": 0.3}, {"nucleus": 0.6, "temperature": 3.0}):
        once = process.predict(Truncation(process, **settings)(random_scores(generator)))
        twice = process.predict(once)
        assert_close(twice.exp(), once.exp())
        assert twice.argmax(1).equal(once.argmax(1))


@families
def test_a_wider_nucleus_holds_a_narrower_one(process, generator):
    raw = random_scores(generator)
    narrow, wide = (answers(process, raw, nucleus=n) > 0 for n in (0.4, 0.8))
    assert (wide | ~narrow).all()
    assert wide.sum() > narrow.sum()


@families
def test_cutting_twice_is_cutting_once_where_one_token_or_all_are_kept(process, generator):
    # Not so in between: what is kept becomes likelier, so a second cut may take more of it.
    raw = random_scores(generator)
    for nucleus in (1e-9, 1.0):
        truncation = Truncation(process, nucleus=nucleus)
        once = truncation(raw.clone())
        twice = truncation(once.clone())
        assert_close(process.predict(twice).exp(), process.predict(once).exp())


@families
@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 2.0])
def test_a_temperature_raises_probabilities_to_its_inverse(process, temperature, generator):
    raw = random_scores(generator)
    powers = answers(process, raw) ** (1 / temperature)
    expected = powers / powers.sum(1, keepdim=True)
    assert_close(answers(process, raw, temperature=temperature), expected)


def test_temperature_comes_before_nucleus():
    raw = log(0.5, 0.3, 0.2)
    process = UDLM(vocab_size=3, schedule=LogLinear())
    # Squared: 25 : 9 : 4. Two of three reach 0.85 after that; it would take all three before.
    got = answers(process, raw, temperature=0.5, nucleus=0.85)
    torch.testing.assert_close(got, torch.tensor([[25 / 34, 9 / 34, 0.0]], dtype=torch.float64))


@masked
@pytest.mark.parametrize("nucleus", [0.01, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [1e-9, 1e-6, 1e-3, 1.0, 1e3, 1e9])
@pytest.mark.parametrize("score", [-50.0, 0.0, 50.0, 1e4])
def test_the_mask_never_wins(process, temperature, nucleus, score, generator):
    raw = random_scores(generator)
    raw[:, MASK] = score
    got = answers(process, raw, temperature=temperature, nucleus=nucleus)
    assert (got[:, MASK] == 0).all()
    assert_close(got.sum(1), torch.ones(len(raw), dtype=torch.float64))
    if temperature < 1e-3:
        assert got.argmax(1).equal(raw.index_fill(1, torch.tensor([MASK]), -math.inf).argmax(1))


@families
def test_scores_are_handed_on_untouched_where_nothing_is_truncated(process, generator):
    raw = random_scores(generator)
    assert Truncation(process)(raw) is raw


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"temperature": -1.0}, "temperature must be positive, got -1.0"),
        ({"temperature": math.nan}, "temperature must be positive, got nan"),
        ({"nucleus": 0.0}, r"nucleus must be in \(0, 1\], got 0.0"),
        ({"nucleus": 1.5}, r"nucleus must be in \(0, 1\], got 1.5"),
        ({"nucleus": math.nan}, r"nucleus must be in \(0, 1\], got nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Truncation(UNIFORM, **settings)
