"""The list of published figures, and what holds measured ones against it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from idlm_ds.build.locate import ASSETS
from idlm_ds.errors import UserError
from idlm_ds.evaluation import genppl
from idlm_ds.evaluation.options import TableOptions
from idlm_ds.evaluation.published_table import PublishedRow, PublishedTable, read_table, run_table
from tests.evaluation.test_genppl import ALONE, models, options

__all__ = ["models", "options"]

TABLE = ASSETS.parents[1] / "ds_configs" / "table1.yaml"
ROW = PublishedRow(
    name="IDLM-MDLM",
    version=2,
    checkpoint="hf:nobody/idlm",
    process="mdlm",
    steps=2,
    sampler="ancestral",
    precision="float32",
    gen_ppl=80.0,
    gen_ppl_std=3.0,
    entropy=5.6,
    entropy_std=0.04,
)


@pytest.fixture
def table_options(options) -> TableOptions:
    return TableOptions(
        judges=options.judging.judges,
        seeds=[0, 1],
        num_samples=options.num_samples,
        output=options.output,
    )


@pytest.mark.parametrize(
    ("row", "gen_ppl", "entropy", "verdict"),
    [
        # Two deviations of sqrt(3² + 4²) = 5 around 80, and of sqrt(.03² + .04²) = .05 around 5.6.
        (ROW, 90.0, 5.6, "pass"),
        (ROW, 90.1, 5.6, "fail"),
        (ROW, 69.9, 5.6, "fail"),
        (ROW, 80.0, 5.699, "pass"),
        (ROW, 80.0, 5.71, "fail"),
        (ROW, None, 5.6, "fail"),
        # Without a published spread: 5% and 0.05 nats, and the error of what was measured.
        (replace(ROW, gen_ppl_std=None), 80 + 2 * (2**2 + 4**2) ** 0.5 - 0.1, 5.6, "pass"),
        (replace(ROW, gen_ppl_std=None), 80 + 2 * (2**2 + 4**2) ** 0.5 + 0.1, 5.6, "fail"),
    ],
)
def test_a_row_passes_within_two_deviations(row, gen_ppl, entropy, verdict):
    measured = {"gen_ppl": gen_ppl, "gen_ppl_se": 4.0, "entropy": entropy, "entropy_se": 0.03}
    assert row.verdict(measured) == verdict


def test_the_shipped_list_is_read_and_names_its_checkpoints():
    table = read_table(TABLE)
    assert table.length == 1024
    assert {row.process for row in table.rows} == {"mdlm", "sedd", "duo"}
    assert all(row.checkpoint.startswith("hf:") for row in table.rows)
    settings = [(r.name, r.steps, r.config.label, r.precision) for r in table.rows]
    assert len(set(settings)) == len(settings)
    mdlm = next(r for r in table.rows if (r.name, r.steps) == ("IDLM-MDLM", 8))
    assert (mdlm.gen_ppl, mdlm.gen_ppl_std, mdlm.entropy) == (79.75, 5.61, 5.61)


def test_a_list_with_a_mistake_is_refused(tmp_path: Path):
    path = tmp_path / "table.yaml"
    path.write_text(TABLE.read_text().replace("entropy: 5.28", "entropie: 5.28", 1))
    with pytest.raises(UserError, match=r"rows\[0\]\.entropie: unknown key; did you mean entropy"):
        read_table(path)
    with pytest.raises(UserError, match="--table: cannot read"):
        read_table(tmp_path / "nothing.yaml")


def rows_of(folder: Path) -> list[dict]:
    return json.loads((folder / "results.json").read_text())["rows"]


def test_stand_ins_run_the_list_and_say_what_they_are(table_options, capsys):
    rows = (ROW, replace(ROW, process="duo", tail="greedy", precision="float64"))
    table = PublishedTable(length=16, tokenizer="assets:tokenizer", rows=rows)
    run_table(table, replace(table_options, with_stand_ins=True), ALONE)
    results = rows_of(table_options.output)
    assert [row["verdict"] for row in results] == ["stand-in", "stand-in"]
    assert [row["family"] for row in results] == ["mdlm", "duo"]
    assert [row["sampler"] for row in results] == ["ancestral", "ancestral+greedy"]
    assert all(row["gen_ppl"] > 0 for row in results)
    assert "STAND-INS" in capsys.readouterr().out
    assert "STAND-INS" in (table_options.output / "results.md").read_text()


def test_the_judge_is_loaded_once_for_all_rows(table_options, options, monkeypatch):
    loaded = []
    load = genppl.load_judge
    monkeypatch.setattr(genppl, "load_judge", lambda *spec: loaded.append(spec) or load(*spec))
    (spec,) = options.checkpoints
    rows = tuple(replace(ROW, checkpoint=spec, steps=steps) for steps in (1, 2, 3))
    table = PublishedTable(length=16, tokenizer="assets:tokenizer", rows=rows)
    run_table(table, replace(table_options, seeds=[0], num_samples=2), ALONE)
    assert len(rows_of(table_options.output)) == 3
    assert len(loaded) == 1


def test_what_is_reachable_is_measured_and_the_rest_is_named(table_options, options, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (spec,) = options.checkpoints
    rows = (ROW, replace(ROW, checkpoint=spec))
    table = PublishedTable(length=16, tokenizer="assets:tokenizer", rows=rows)
    run_table(table, table_options, ALONE)
    lost, measured = rows_of(table_options.output)
    assert lost["verdict"].startswith("not reachable: --checkpoint: hf:nobody/idlm is not in the")
    assert "gen_ppl" not in lost
    assert (measured["verdict"], measured["steps"], measured["precision"]) == ("fail", 2, "float32")
