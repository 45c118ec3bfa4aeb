"""Completers whose networks are told what to write."""

from functools import cache

import torch
from torch import Tensor

from idlm_ds.build.locate import ASSETS
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.evaluation.completion import Completer
from idlm_ds.processes.base import Process, Read
from idlm_ds.processes.mdlm import MDLM
from idlm_ds.samplers.config import SamplerConfig
from idlm_ds.schedules.loglinear import LogLinear
from tests.heads import ScoresOf


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer(ASSETS / "tokenizer")


def masked() -> MDLM:
    words = len(tokenizer())
    return MDLM(vocab_size=words + 1, schedule=LogLinear(1e-3), mask_id=words)


class Scripted:
    """A network that is sure of one token at each position, whatever it sees."""

    def __init__(self, script: list[int]) -> None:
        self.script = torch.tensor(script)
        self.batches: list[int] = []

    def __call__(self, x: Tensor, sigma: Tensor, read: Read, /) -> Tensor:
        del sigma
        self.batches.append(len(x))

        def project(positions: Tensor) -> Tensor:
            raw = torch.zeros(len(positions), len(tokenizer()) + 1)
            words = self.script[positions % x.shape[1]]
            return raw.scatter(1, words[:, None], 60.0)

        return read(ScoresOf(project))


class Counting:
    """A network that likes the words whose ids are near the mean of what it sees."""

    def __call__(self, x: Tensor, sigma: Tensor, read: Read, /) -> Tensor:
        del sigma
        centre = (x.double() * torch.arange(1, x.shape[1] + 1)).mean(1) % 300 + 100
        rows = -0.1 * (torch.arange(len(tokenizer()) + 1) - centre[:, None]).abs()
        return read(ScoresOf(lambda positions: rows[positions // x.shape[1]]))


def completer(network, *, length: int, process: Process | None = None, **settings) -> Completer:
    defaults = {
        "config": SamplerConfig(steps=3),
        "bos": False,
        "seed": 0,
        "device": torch.device("cpu"),
    }
    return Completer(
        process=process or masked(),
        network=network,
        tokenizer=tokenizer(),
        length=length,
        **{**defaults, **settings},
    )
