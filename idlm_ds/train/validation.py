"""Held-out loss of a network that is being pretrained."""

import math
from typing import final

import numpy as np
import numpy.typing as npt
import torch

from idlm_ds.engine.dist import World
from idlm_ds.engine.role import RoleEngine
from idlm_ds.noise import Noise, stratified_times
from idlm_ds.objectives.pretrain import PretrainObjective
from idlm_ds.train.console import say
from idlm_ds.train.loop import PhaseRecord
from idlm_ds.train.metrics import MetricsFile


@final
class Validation:
    """Measures the running-mean weights on fixed windows, times and noise."""

    def __init__(
        self,
        model: RoleEngine,
        objective: PretrainObjective,
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

    @torch.no_grad()
    def measure(self) -> float:
        """Collective: mean nats per token over all windows."""
        times = stratified_times(0, "validation", count=len(self._windows), t_min=0.0)
        total = torch.zeros((), dtype=torch.float64)
        assert self._model.ema is not None
        with self._model.ema.in_place():
            # Every rank runs the same number of batches: ZeRO-3 gathers weights in each of them.
            for start in range(0, len(self._windows), self._batch * self._world.size):
                rows = range(start, min(start + self._batch * self._world.size, len(times)))
                kept = list(rows[self._world.rank :: self._world.size])
                mine = kept or [rows[0]]
                nats = self._objective.loss(
                    self._model.module,
                    self._windows[mine].to(self._world.device),
                    times[mine].to(self._world.device),
                    noise=Noise.of_samples(
                        0, "validation", samples=mine, device=self._world.device
                    ),
                )
                total += nats.double().sum().cpu() * bool(kept)
        scored = len(self._windows) * self._objective.num_scored(self._windows.shape[1])
        return self._world.sum(total).item() / scored

    def close(self) -> None:
        """See ``Hook``."""
