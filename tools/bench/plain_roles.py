"""Networks that learn in plain PyTorch, without an engine: the same optimizer work for everyone."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from idlm_ds.engine.trio import Borrowed, StepReport

Kind: TypeAlias = Literal["fused", "foreach", "loop"]
"""PyTorch's ways to run AdamW; a loop over tensors is its default on CPUs, foreach on GPUs."""

DECAY = 0.9999
OPTIMIZER, MEANS = "optimizer", "running mean"
"""Labels of a profile."""


class OneRank:
    """A process group of one."""

    rank, size, is_first = 0, 1, True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def sum(self, values: Tensor) -> Tensor:
        """See ``World.sum``."""
        return values


class Frozen:
    """A network that never learns."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.requires_grad_(False).eval()

    @contextmanager
    def lent(self) -> Iterator[nn.Module]:
        """See ``Borrowed``."""
        yield self.module

    def release(self) -> None:
        """See ``Borrowed``; nothing was gathered."""


class Learning(Frozen):
    """A network with AdamW, the norm of its gradient and a running mean."""

    def __init__(self, module: nn.Module, kind: Kind = "foreach") -> None:
        super().__init__(module)
        self.kind = kind
        """How the next step runs AdamW; the moments are the same for all kinds."""

        self.before_update: Callable[[], object] = lambda: None
        """Called when gradients are complete."""

        self.updates = 0
        self.ema = self
        self._parameters = list(module.parameters())
        self._adam = torch.optim.AdamW(self._parameters, lr=0.0, weight_decay=0.0)
        self._means = [p.detach().clone() for p in self._parameters]

    @contextmanager
    def learning(self) -> Iterator[nn.Module]:
        """See ``Learner``."""
        self.module.requires_grad_(True).train()
        try:
            yield self.module
        finally:
            self.module.requires_grad_(False).eval()

    def backward(self, loss: Tensor) -> None:
        """See ``Learner``."""
        loss.backward()

    def step(self, lr: float) -> StepReport:
        """See ``Learner``."""
        self.before_update()
        with record_function(OPTIMIZER):
            gradients = [p.grad for p in self._parameters if p.grad is not None]
            norm = torch.stack(torch._foreach_norm(gradients)).norm()
            del gradients
            is_of_kind = {"fused": self.kind == "fused", "foreach": self.kind == "foreach"}
            self._adam.param_groups[0].update(lr=lr, **is_of_kind)
            self._adam.step()
            self._adam.zero_grad(set_to_none=True)
        self.updates += 1
        decay = min(DECAY, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad(), record_function(MEANS):
            torch._foreach_lerp_(self._means, self._parameters, 1 - decay)
        return StepReport(float(norm), lr, True)


def plain_roles(network: Callable[[int], nn.Module]) -> Mapping[str, Borrowed]:
    """Make teacher, fake and student, with different weights so that there is a gap.

    Args:
        network: Makes the network of a seed.
    """
    return {
        "teacher": Frozen(network(1)),
        "fake": Learning(network(2)),
        "student": Learning(network(3)),
    }
