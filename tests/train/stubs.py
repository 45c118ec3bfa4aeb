"""Stands in for DeepSpeed engines and the process group: plain PyTorch, one process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from idlm_ds.engine.trio import StepReport


class OneRank:
    """A process group of one."""

    rank, size, device = 0, 1, torch.device("cpu")

    def sum(self, values: Tensor) -> Tensor:
        return values.clone()


class Frozen:
    """A network that never learns."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.requires_grad_(False).eval()
        self.is_lent = False
        self.releases = 0

    @contextmanager
    def lent(self) -> Iterator[nn.Module]:
        self.is_lent = True
        try:
            yield self.module
        finally:
            self.is_lent = False

    def release(self) -> None:
        self.releases += 1


class Learning(Frozen):
    """A network and Adam; the running mean is the network itself."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.updates = 0
        self.ema = self
        self.adam = torch.optim.Adam(module.parameters(), lr=1.0)

    in_place = staticmethod(nullcontext)

    @contextmanager
    def learning(self) -> Iterator[Callable[..., Tensor]]:
        self.module.requires_grad_(True).train()
        try:
            yield self.module
        finally:
            self.module.requires_grad_(False).eval()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self, lr: float) -> StepReport:
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), torch.inf).item()
        self.adam.param_groups[0]["lr"] = lr
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.updates += 1
        return StepReport(norm, lr, True)
