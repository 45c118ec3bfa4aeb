"""Held-out loss of a network that is being pretrained."""

import math
from typing import final

import numpy as np
import numpy.typing as npt
import torch

from idlm_ds.console import say
from idlm_ds.engine.dist import World
from idlm_ds.engine.trio import Learner
from idlm_ds.metrics.accumulate import PerplexityAccumulator
from idlm_ds.metrics.likelihood import measure_likelihood
from idlm_ds.objectives.pretrain import PretrainMethod
from idlm_ds.train.hooks.metrics import MetricsFile
from idlm_ds.train.loop import PhaseRecord


@final
class Validation:
    """Held-out loss of the running-mean weights on fixed windows, times and noise."""

    def __init__(
        self,
        model: Learner,
        objective: PretrainMethod,
        windows: npt.NDArray[np.int64],
        *,
        every: int,
        stop: int,
        batch: int,
        world: World,
        metrics: MetricsFile | None,
    ) -> None:
        self._model = model
        self._objective = objective
        self._windows = torch.from_numpy(windows)
        self._every = every
        self._stop = stop
        self._batch = batch
        self._world = world
        self._metrics = metrics

    def after_phase(self, record: PhaseRecord) -> None:
        """See ``Hook``."""
        done = record.step + 1
        if done % self._every and done != self._stop:
            return
        nats = self.measure()
        if self._metrics is not None:
            bits, ppl = nats / math.log(2), math.exp(nats)
            figures = {"loss": nats, "bits": bits, "ppl": ppl}
            self._metrics.write({"step": record.step, "phase": "heldout", **figures})
            say(
                f"  step {done}: held-out {nats:.4f} nats/token ({bits:.3f} bits, "
                f"perplexity {ppl:.1f}), {len(self._windows)} windows, EMA"
            )

    def measure(self) -> float:
        """Average the nats per token over all windows.

        Collective: every rank must call.
        """
        rank, size = self._world.rank, self._world.size
        share = -(-len(self._windows) // size)
        with self._model.ema.in_place():
            local = measure_likelihood(
                self._objective,
                self._model.module,
                self._windows,
                batch=self._batch,
                t_min=0.0,
                rows=range(rank, len(self._windows), size),
                # ZeRO-3 gathers weights in each of them.
                num_batches=-(-share // self._batch),
                device=self._world.device,
            )
        return PerplexityAccumulator(self._world.sum(local.sums).cpu()).rate().value

    def close(self) -> None:
        """See ``Hook``."""
