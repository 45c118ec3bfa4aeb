"""Time and operations of a step are attributed to its parts."""

import json
import sys
from pathlib import Path

import pytest
import torch

import idlm_ds
from idlm_ds import noise
from idlm_ds.objectives.alternation import Phase
from idlm_ds.train.flops import network_flops, training_flops

from .test_prepare_data import run

sys.path.insert(0, str(Path(idlm_ds.__file__).parents[1] / "tools"))
import profile_step
from bench.labels import labelled
from bench.parts import BACKWARD, FORWARD, PARTS, PHASES, PROJECTION, by_phase
from bench.sizes import Sizes
from bench.step_variants import Plain

DRAWS = {k: f for k, f in vars(noise.Noise).items() if k.startswith(("uniform", "normal"))}
SMALL = {"hidden": 16, "blocks": 2, "heads": 2, "batch": 2, "length": 16, "vocab": 300, "cond": 8}
TINY = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
TINY += ["--threads", 1, "--rounds", 1]
FAKE, STUDENT = PHASES


@pytest.mark.parametrize("variant", ["published", "ours"])
def test_operations_are_those_that_sizes_imply(variant):
    sizes = Sizes(**SMALL)
    plain = Plain(sizes)
    step = getattr(plain, variant)("loop")
    taken = profile_step.take_profile(plain, step, torch.device("cpu"))
    parts = by_phase(taken, sizes.vocab, is_cuda=False)
    flops, tokens = network_flops(sizes.config), 2 * 16
    token = flops.token + flops.pair * 16
    # Two forward passes and one backward; three and one.
    for phase, forwards in ((FAKE, 2), (STUDENT, 3)):
        sequences = forwards * 2 * flops.sequence
        forward, backward = parts[phase][FORWARD].flops, parts[phase][BACKWARD].flops
        assert forward == pytest.approx(forwards * tokens * token, abs=sequences)
        assert backward == pytest.approx(2 * tokens * token, abs=2 * sequences)
    if variant == "published":
        projected = parts[FAKE][PROJECTION].flops
        # The modulation of the last norm is made for every row.
        assert projected == pytest.approx(4 * tokens * (flops.row + 4 * 8 * 16))
        needed = training_flops(sizes.config, Phase.FAKE, length=16) * tokens
        assert sum(amount.flops for amount in parts[FAKE].values()) == pytest.approx(
            needed, rel=0.2
        )


def test_labels_leave_nothing_behind():
    plain = Plain(Sizes(**SMALL))
    network = plain.roles["student"].module
    draw, uniform = noise.draw_categorical, noise.Noise.uniform
    with labelled([network]):
        assert "forward" in vars(network)
        assert noise.Noise.uniform is not uniform
        assert all(vars(noise.Noise)[name] is not draw for name, draw in DRAWS.items())
    assert "forward" not in vars(network)
    assert (noise.draw_categorical, noise.Noise.uniform) == (draw, uniform)


def test_a_profile_is_printed_and_written(tmp_path, monkeypatch, capsys):
    out, trace = tmp_path / "figures.json", tmp_path / "trace.json"
    assert run([*TINY, "--json", out, "--trace", trace], monkeypatch, profile_step) == 0
    figures = json.loads(out.read_text())["figures"]
    assert list(figures["parts"]) == list(PARTS)
    assert all(figures["parts"][part][FAKE]["seconds"] > 0 for part in PARTS)
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert {FAKE, STUDENT, "aten::mm"} <= names
    lines = capsys.readouterr().out.splitlines()
    assert [line[:24].strip() for line in lines[3 : 3 + len(PARTS)]] == list(PARTS)


def test_sizes_come_from_a_recipe():
    sizes = Sizes.of_recipe("quickstart")
    assert (sizes.hidden, sizes.blocks, sizes.cond, sizes.vocab) == (160, 4, 64, 2049)
    assert (sizes.batch, sizes.length) == (16, 64)


def test_a_missing_recipe_is_one_line(monkeypatch, capsys):
    assert run(["--recipe", "nothing"], monkeypatch, profile_step) == 2
    assert "nothing" in capsys.readouterr().err
