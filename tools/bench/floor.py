"""The operations that an iteration cannot do without, whoever writes it.

Counted are matrix products of one fake phase and one student phase:

* trunk, 9 passes: forward of the student and forward and backward (two passes) of the fake; then
  forward and backward of the student, forward of teacher and fake. Where networks are shown
  mixtures that carry the student's graph (Duo), the products that lead to their input too: one
  pass more each of teacher and fake for the layers with weights, two for attention.
* projection of the rows that can matter. Masked families, with m the share of positions the
  student is asked about and n the share that is masked again: the student's answers (m) in both
  phases, forward and backward of the fake at what is masked again (3 n); backward of the student,
  and one row each of teacher and fake, where both masks meet (4 m n). Uniform families: every
  position, 9 times.
* mixtures of tokens that are shown to networks (Duo): a product with the table for each of the
  five inputs, one for the gradient of the table of each network that learns, and one each for the
  gradients of what teacher and fake are shown: 9 times every position.

Attention's backward counts as two forward passes, without what kernels compute again. Optimizer,
losses, draws and layers that see a sequence once count nothing.
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
    mixtures: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.trunk + self.projection + self.mixtures


def floor_of(sizes: Sizes) -> Floor:
    """Count the operations that one iteration of these sizes needs, on average over times."""
    network, tokens = network_flops(sizes.config), sizes.batch * sizes.length
    process = sizes.process()
    shows_mixtures = hasattr(process, "clock")
    layers, attention = (11, 13) if shows_mixtures else (9, 9)
    share = masked_share(process, sizes.t_min)
    rows = 2 * share + 3 * share + 4 * share**2 if is_masked(sizes.family) else 9
    return Floor(
        trunk=tokens * (layers * network.token + attention * network.pair * sizes.length),
        projection=tokens * rows * network.row,
        mixtures=tokens * (9 if shows_mixtures else 0) * network.row,
    )


def masked_share(process: Process, t_min: float) -> float:
    """Average the share of positions without their token over times from ``t_min`` to 1."""
    times = torch.linspace(t_min, 1.0, GRID, dtype=torch.float64)
    return float(process.schedule.at(times).masked.mean())
