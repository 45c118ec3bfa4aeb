"""One network and the DeepSpeed engine around it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import deepspeed
import torch
from torch import Tensor, nn

from idlm_ds.engine.config import AdamW, EngineJson, Numerics
from idlm_ds.engine.ema import Ema
from idlm_ds.engine.shards import Shards
from idlm_ds.engine.weights import WeightSource, fill_weights


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one optimizer step did."""

    grad_norm: float
    lr: float
    was_applied: bool


class _Inject(torch.autograd.Function):
    """A scalar zero whose gradient with respect to the output is a ready-made cotangent."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, cotangent: Tensor) -> Tensor:
        ctx.save_for_backward(cotangent)
        return output.new_zeros(())

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None]:
        (cotangent,) = ctx.saved_tensors
        return cotangent * scale, None


class RoleEngine:
    """A network that can learn, or be borrowed by another one's loss, never both at once.

    Learning goes through the DeepSpeed engine. Borrowing goes through ``.module``: an engine
    hooks its outputs, and the hooks of an idle engine either raise in the other's backward or
    spoil its own next gradient without a word.
    """

    def __init__(self, name: str, engine: Any, *, is_trained: bool) -> None:
        self.name = name
        self.is_trained = is_trained
        self._engine = engine
        self._open_graphs = 0
        self.updates = 0
        self.shards = Shards(engine) if is_trained else None
        self.ema: Ema | None = None
        self.kept: dict[str, list[Tensor]] = {}
        """What checkpoints carry beside weights and moments, laid out like the weights."""
        engine.module.requires_grad_(False)
        engine.module.eval()

    @property
    def module(self) -> nn.Module:
        """The bare network, for borrowing."""
        return self._engine.module

    def start_ema(self, decay: float) -> None:
        """Keep a running mean of the weights from here on."""
        if self.shards is None:
            raise TypeError(f"{self.name} does not learn, so it has no running mean")
        self.ema = Ema(self.shards, decay)
        self.kept["ema"] = self.ema.buffers

    @contextmanager
    def learning(self) -> Iterator[Callable[..., Tensor]]:
        """Open the network for learning; outside this block no parameter takes a gradient."""
        self.module.requires_grad_(True)
        self.module.train()
        try:
            yield self._forward
        finally:
            self.module.requires_grad_(False)
            self.module.eval()

    def _forward(self, *inputs: Any) -> Tensor:
        output = self._engine(*inputs)
        self._open_graphs += output.requires_grad
        return output

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss already scaled by the caller."""
        self._engine.backward(loss, scale_wrt_gas=False)
        self._open_graphs -= 1

    def backward_from(self, output: Tensor, cotangent: Tensor) -> None:
        """Add the gradient of ``<output, cotangent>``: the other half of a cut graph."""
        self.backward(_Inject.apply(output, cotangent))

    def step(self, lr: float) -> StepReport:
        """Update the weights, then the running mean.

        Raises:
            RuntimeError: A graph made before this step has not been consumed. Its backward
                would silently use the new weights.
        """
        if self._open_graphs:
            raise RuntimeError(
                f"{self.name}: {self._open_graphs} graph(s) still open at step(); "
                "run every backward of a phase before its step"
            )
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        skipped = self._engine.skipped_steps
        self._engine.step()
        was_applied = self._engine.skipped_steps == skipped
        self.updates += was_applied
        if self.ema is not None and was_applied:
            self.ema.update(self.updates)
        return StepReport(float(self._engine.get_global_grad_norm() or 0.0), lr, was_applied)

    def reload(self, source: WeightSource) -> None:
        """Put other weights into a network that does not learn."""
        if self.is_trained:
            raise TypeError(f"{self.name} learns; its weights belong to its optimizer")
        self.release()
        fill_weights(self.module, source)

    def release(self) -> None:
        """Give back weights that ZeRO-3 gathered for a forward whose backward never came.

        Its prefetcher fetches ahead into that backward and keeps what it skipped, so some weights
        stay whole or in flight; whole ones would not follow a later change of the shards.
        """
        offload = getattr(self._engine.optimizer, "parameter_offload", self._engine.optimizer)
        if hasattr(offload, "release_backward_leftovers"):
            offload.release_backward_leftovers()
            offload.partition_all_parameters()


def start_role(
    name: str,
    make: Callable[[], nn.Module],
    source: WeightSource,
    json: EngineJson,
    numerics: Numerics,
    optimizer: AdamW | None,
) -> RoleEngine:
    """Build a network, load it and put an engine around it.

    At stage 3 the network is built already sharded and every rank reads only its own part of
    each tensor, so no process ever holds the whole.

    Args:
        name: The role, for messages.
        make: Builds the network; its values are overwritten.
        source: Where weights come from.
        json: The engine file.
        numerics: Batch, precision and clipping.
        optimizer: None for a network that never learns.
    """
    is_trained = optimizer is not None
    fields = json.trained(numerics, optimizer) if optimizer else json.frozen(numerics)
    is_sharded = fields["zero_optimization"]["stage"] == 3
    with deepspeed.zero.Init(config_dict_or_path=fields) if is_sharded else nullcontext():
        module = make()
    fill_weights(module, source)
    module.requires_grad_(is_trained)
    engine, *_ = deepspeed.initialize(
        model=module,
        config=fields,
        model_parameters=list(module.parameters()) if is_trained else None,
    )
    return RoleEngine(name, engine, is_trained=is_trained)
