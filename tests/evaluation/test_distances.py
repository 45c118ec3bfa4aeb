"""Samples against real text: what is measured, how often, and what is refused."""

import math
from typing import Any

import pytest

from idlm_ds.errors import UserError
from idlm_ds.evaluation import distances
from idlm_ds.evaluation.genppl import run_genppl
from tests.distributed.harness import run_ranks
from tests.evaluation.changes import change
from tests.evaluation.test_genppl import ALONE, _on_ranks, models, options, results

__all__ = ["models", "options"]


def test_real_text_is_read_once_for_all_sets_of_a_size(options, monkeypatch):
    read = []
    features = distances.last_token_features

    def counted(judge: Any, texts: list[str], **more: Any) -> Any:
        read.append(tuple(texts))
        return features(judge, texts, **more)

    monkeypatch.setattr(distances, "last_token_features", counted)
    settings = change(options, metrics=["mauve"], num_samples=24)
    run_genppl(settings, ALONE)
    rows = results(options)
    assert len(rows) == 2
    for row in rows:
        assert 0 < row["mauve"] <= 1
        assert row["mauve_std"] >= 0
        assert row["mauve_settings"]["num_texts"] == 24
    cells = 4
    assert len(read) == cells + 1
    run_genppl(settings, ALONE)
    assert len(read) == cells + 1, "what is on disk was measured again"


def test_the_distance_of_gradients_is_measured_once(options):
    settings = change(options, steps=[2], metrics=["gm"], num_samples=8)
    run_genppl(settings, ALONE)
    (row,) = results(options)
    assert math.isfinite(row["gm"])
    assert row["gm_se"] > 0
    stamps = [p.stat().st_mtime_ns for p in sorted((options.output / "scores").iterdir())]
    run_genppl(settings, ALONE)
    assert [p.stat().st_mtime_ns for p in sorted((options.output / "scores").iterdir())] == stamps


@pytest.mark.slow
def test_the_distance_of_gradients_does_not_depend_on_the_number_of_ranks(options, tmp_path):
    settings = change(options, steps=[2], metrics=["gm"], num_samples=8)
    run_genppl(settings, ALONE)
    other = change(settings, output=tmp_path / "two")
    run_ranks(_on_ranks, 2, other)
    (row,), (again,) = results(settings), results(other)
    assert again["gm"] == pytest.approx(row["gm"], rel=1e-4, abs=1e-3 * row["gm_se"])


def test_a_reference_too_short_for_as_many_passages_is_refused(options, tmp_path):
    (tmp_path / "short.jsonl").write_text('{"text": "One."}\n{"text": "Two."}')
    short = change(options, metrics=["gm"], reference=str(tmp_path / "short.jsonl"))
    with pytest.raises(UserError, match="held-out windows of 16 tokens were asked for"):
        run_genppl(short, ALONE)
