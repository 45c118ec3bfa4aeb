"""The operations that an iteration cannot do without, whoever writes it.

Counted are matrix products of one fake phase and one student phase:

* trunk, 9 passes: forward of the student and forward and backward (two passes) of the fake; then
  forward and backward of the student, forward of teacher and fake. Where networks are shown
  something that carries the student's graph (Duo), the products that lead to their input too: one
  pass more each of teacher and fake for the layers with weights, two for attention.
* projection of the rows that can matter. Masked families, with m the share of positions the
  student is asked about and n the share that is masked again: the student's answers (m) in both
  phases, forward and backward of the fake at what is masked again (3 n); backward of the student,
  and one row each of teacher and fake, where both masks meet (4 m n). Uniform families: every
  position, 9 times; Duo 11 times, as teacher and fake pass a gradient to their hidden states.

Attention's backward counts as two forward passes, without what kernels compute again. Optimizer,
losses, draws, layers that see a sequence once and mixtures of tokens, which may be of few tokens,
count nothing.
"""

from dataclasses import dataclass

import torch

from bench.sizes import Sizes
from idlm_ds.processes.base import Process
from idlm_ds.registry.families import is_masked
from idlm_ds.train.flops import network_flops

GRID = 1001


@dataclass(frozen=True, slots=True)
class Floor:
    """Operations of an iteration."""

    trunk: float
    projection: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.trunk + self.projection


def floor_of(sizes: Sizes) -> Floor:
    """Count the operations that one iteration of these sizes needs, on average over times."""
    network, tokens = network_flops(sizes.config), sizes.batch * sizes.length
    process = sizes.process()
    has_path = hasattr(process, "clock")
    layers, attention, rows = (11, 13, 11.0) if has_path else (9, 9, 9.0)
    if is_masked(sizes.family):
        share = masked_share(process, sizes.t_min)
        rows = 2 * share + 3 * share + 4 * share**2
    return Floor(
        trunk=tokens * (layers * network.token + attention * network.pair * sizes.length),
        projection=tokens * rows * network.row,
    )


def masked_share(process: Process, t_min: float) -> float:
    """Average the share of positions without their token over times from ``t_min`` to 1."""
    times = torch.linspace(t_min, 1.0, GRID, dtype=torch.float64)
    return float(process.schedule.at(times).masked.mean())
