"""The printed samples of a student, which is the embedded teacher here."""

import re
from contextlib import nullcontext
from types import SimpleNamespace

import torch

from idlm_ds.build.locate import ASSETS
from idlm_ds.build.saved_model import open_model
from idlm_ds.engine.dist import World
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.train.hooks import preview


def test_the_lowest_entropy_stands_beside_the_mean(monkeypatch, capsys):
    opened = open_model(str(ASSETS / "teacher"), length=16)
    network = opened.load(torch.device("cpu"))
    tokens = torch.arange(16).repeat(preview.COUNT, 1)
    tokens[3] = 7
    sampled = SimpleNamespace(tokens=tokens)
    monkeypatch.setattr(preview, "sample_batched", lambda *_, **__: sampled)
    hook = preview.Preview(
        SimpleNamespace(module=network, ema=SimpleNamespace(in_place=nullcontext)),
        opened.process,
        opened.tokenizer,
        every=10,
        chain=SamplerConfig(steps=4),
        length=16,
        seed=0,
        world=World(0, 1, 0, torch.device("cpu")),
    )
    hook.after_phase(SimpleNamespace(phase="student", update=9))
    hook.after_phase(SimpleNamespace(phase="fake", update=10))
    assert capsys.readouterr().out == ""
    hook.after_phase(SimpleNamespace(phase="student", update=10))
    line = capsys.readouterr().out.splitlines()[0]
    mean, lowest = re.search(r"entropy ([\d.]+) nats, lowest ([\d.]+),", line).groups()
    assert (mean, lowest) == ("2.60", "0.00")
