"""The comparison of samplers runs; its yardstick draws from the package's distributions."""

import json
import sys
from pathlib import Path

import pytest
import torch

import idlm_ds
from idlm_ds.registry.families import FAMILIES

from .test_prepare_data import run

sys.path.insert(0, str(Path(idlm_ds.__file__).parents[1] / "tools"))
import bench_sampler
from bench.published import published
from bench.published_sampler import dense_posterior, sample_chain, tweedie
from bench.sampler_variants import Drawing, Sampling
from bench.sizes import Sizes

SMALL = {"hidden": 16, "blocks": 1, "heads": 2, "batch": 3, "length": 8, "vocab": 23}
TINY = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
TINY += ["--threads", 1, "--rounds", 2, "--steps", 4]


class Case:
    """A state, raw scores, and two times."""

    def __init__(self, family: str) -> None:
        self.process = Sizes(family=family, **SMALL).process()
        self.form = published(self.process, torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randint(23, (3, 8), generator=generator)
        self.x[:, ::2] = 22
        self.raw = torch.randn(3, 8, 23, generator=generator, dtype=torch.float64)
        t, s = torch.tensor([0.9, 0.5, 0.2]).double(), torch.tensor([0.6, 0.4, 0.0]).double()
        self.t, self.s = t, s
        self.at_t, self.at_s = self.process.schedule.at(t), self.process.schedule.target(s)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "sedd"])
def test_a_dense_step_is_the_reverse_step_of_the_family(family):
    case = Case(family)
    f = case.process.predict(case.raw.flatten(0, 1)).exp().view(3, 8, 23)
    dense = dense_posterior(case.form, f, case.x, case.at_t, case.at_s).flatten(0, 1)
    undecided = case.process.undecided(case.x)
    raw = case.raw.flatten(0, 1)[undecided]
    ours = case.process.reverse(raw, case.x, case.t, case.s, undecided)
    dense = dense[undecided] / dense[undecided].sum(-1, keepdim=True)
    torch.testing.assert_close(dense, ours, rtol=1e-9, atol=1e-12)


def test_the_step_of_score_entropy_reveals_words_at_their_ratios():
    case = Case("sedd")
    dense = tweedie(case.form, case.raw, case.x, case.at_t, case.at_s)
    share = (case.at_t.masked - case.at_s.masked) / case.at_t.masked
    masked = case.process.undecided(case.x)
    log_share = share.log()[masked // 8]
    ours = case.process.log_ratio(case.raw.flatten(0, 1)[masked], log_share).exp()
    torch.testing.assert_close(dense.flatten(0, 1)[masked][:, :-1], ours[:, :-1])
    assert (dense[2, :, 22] == 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_chains_end_without_noise(family):
    drawing = Drawing(Sizes(family=family, **SMALL), Sampling(steps=4))
    dense, ours, body = (drawing.ways[name]() for name in ("dense", "ours", "body"))
    assert dense.tokens.shape == ours.tokens.shape == (3, 8)
    assert 0 < dense.passes <= 5
    assert body.passes == ours.passes
    if FAMILIES[family].is_masked:
        assert (dense.tokens != 22).all()


def test_an_answer_is_kept_while_nothing_changes():
    case = Case("mdlm")
    calls = []

    def network(x, sigma, read):
        calls.append(x.clone())
        return torch.randn(x.numel(), 23, generator=torch.Generator().manual_seed(0))

    chain = sample_chain(case.form, network, torch.full((1, 2), 22), steps=32)
    assert len(calls) == chain.passes <= 3


def test_blocks_are_those_of_the_package():
    sampling = Sampling(blockwise=True, prompt=4, block=4, steps=4)
    drawing = Drawing(Sizes(**SMALL), sampling)
    assert torch.equal(drawing.dense().tokens, drawing.ours().tokens)


@pytest.mark.parametrize("more", [[], ["--blockwise", "--prompt", 4, "--block", 4]])
def test_variants_are_measured_and_written(more, tmp_path, monkeypatch, capsys):
    out = tmp_path / "figures.json"
    assert run([*TINY, *more, "--json", out], monkeypatch, bench_sampler) == 0
    figures = json.loads(out.read_text())["figures"]
    assert list(figures["variants"]) == ["dense", "ours", "body"]
    assert figures["over_body"] > 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["dense", "ours", "body"]
    assert "faster than dense" in lines[4]


@pytest.mark.slow
def test_memory_is_measured_in_processes_of_their_own(tmp_path, monkeypatch, capsys):
    out = tmp_path / "figures.json"
    more = ["--vocab", 4000, "--length", 64, "--memory", "--rounds", 1, "--json", out]
    assert run([*TINY, *more], monkeypatch, bench_sampler) == 0
    rows = json.loads(out.read_text())["figures"]["variants"]
    assert rows["dense"]["extra"] > 3 * 64 * 4000 * 8
    assert "of dense" in capsys.readouterr().out
