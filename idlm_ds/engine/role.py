"""One network and the DeepSpeed engine around it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, final

import deepspeed
from torch import Tensor, nn

from idlm_ds.checkpoints.rank_files import RUNNING_MEAN
from idlm_ds.engine.config import AdamW, EngineJson, Numerics
from idlm_ds.engine.ema import Ema
from idlm_ds.engine.trio import StepReport
from idlm_ds.engine.weights import WeightSource, fill_weights
from idlm_ds.engine.zero import Shards, release_gathered


class Role:
    """A network inside an engine, at rest: no parameter takes a gradient, nothing drops out.

    It is used through ``module``: an engine hooks its outputs, and the hooks of an idle engine
    either raise in another one's backward or spoil its own next gradient without a word.
    """

    def __init__(self, name: str, engine: Any) -> None:
        self.name = name
        self._engine = engine
        engine.module.requires_grad_(False)
        engine.module.eval()

    @property
    def module(self) -> nn.Module:
        """The bare network."""
        return self._engine.module

    def release(self) -> None:
        """Give back weights that were gathered for a forward whose backward never came."""
        release_gathered(self._engine)


@final
class FrozenRole(Role):
    """A network that never learns."""

    def reload(self, source: WeightSource) -> None:
        """Put other weights into it."""
        self.release()
        fill_weights(self.module, source)


@final
class TrainedRole(Role):
    """A network that can learn, or be borrowed by another one's loss, never both at once."""

    def __init__(self, name: str, engine: Any, *, ema_decay: float | None) -> None:
        self.trainable = {n for n, p in engine.module.named_parameters() if p.requires_grad}
        """Names of the parameters that learn."""

        self.shards = Shards(engine, self.trainable)
        super().__init__(name, engine)
        self.updates = 0
        self.ema = Ema(self.shards, ema_decay)
        self.kept: dict[str, list[Tensor]] = {}
        """What checkpoints carry beside weights, moments and mean, laid out like the weights."""

        self._open_graphs = 0

    @property
    def has_mean(self) -> bool:
        """Whether a running mean is kept."""
        return self.ema.decay is not None

    def stored(self) -> dict[str, list[Tensor]]:
        """Return all that checkpoints carry, by kind, laid out like the weights; by reference."""
        mean = {RUNNING_MEAN: self.ema.buffers} if self.has_mean else {}
        return {"weight": self.shards.weights, **self.shards.moments(), **mean, **self.kept}

    @contextmanager
    def learning(self) -> Iterator[Callable[..., Tensor]]:
        """Open the network for learning; outside this block no parameter takes a gradient."""
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(name in self.trainable)
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
        if was_applied:
            self.ema.update(self.updates)
        return StepReport(float(self._engine.get_global_grad_norm() or 0.0), lr, was_applied)


def start_frozen(
    name: str,
    make: Callable[[], nn.Module],
    source: WeightSource,
    json: EngineJson,
    numerics: Numerics,
) -> FrozenRole:
    """Build a network that never learns, load it and put an engine around it.

    Args:
        name: The role, for messages.
        make: Builds the network; its values are overwritten.
        source: Where weights come from.
        json: The engine file.
        numerics: Batch and precision.
    """
    fields = json.frozen(numerics)
    module = _loaded(make, source, fields).requires_grad_(False)
    engine, *_ = deepspeed.initialize(model=module, config=fields)
    return FrozenRole(name, engine)


def start_trained(
    name: str,
    make: Callable[[], nn.Module],
    source: WeightSource,
    json: EngineJson,
    numerics: Numerics,
    optimizer: AdamW,
    *,
    ema_decay: float | None,
    trainable: Callable[[str], bool] = lambda name: True,
) -> TrainedRole:
    """Build a network that learns, load it and put an engine around it.

    Args:
        name: The role, for messages.
        make: Builds the network; its values are overwritten.
        source: Where weights come from.
        json: The engine file.
        numerics: Batch, precision and clipping.
        optimizer: Settings of Adam.
        ema_decay: Share of the running mean that an update keeps; None for no running mean.
        trainable: Whether a parameter of this name learns; the others stay as loaded, and have
            no gradient, no optimizer state and no running mean.
    """
    fields = json.trained(numerics, optimizer)
    module = _loaded(make, source, fields)
    for parameter_name, parameter in module.named_parameters():
        parameter.requires_grad_(trainable(parameter_name))
    learning = [p for p in module.parameters() if p.requires_grad]
    if not learning:
        raise ValueError(f"{name}: no parameter is trainable")
    engine, *_ = deepspeed.initialize(model=module, config=fields, model_parameters=learning)
    return TrainedRole(name, engine, ema_decay=ema_decay)


def _loaded(
    make: Callable[[], nn.Module], source: WeightSource, fields: dict[str, Any]
) -> nn.Module:
    """Build and fill a network.

    At stage 3 it is built already sharded and every rank reads only its own part of each tensor,
    so no process ever holds the whole.
    """
    is_sharded = fields["zero_optimization"]["stage"] == 3
    with deepspeed.zero.Init(config_dict_or_path=fields) if is_sharded else nullcontext():
        module = make()
    fill_weights(module, source)
    return module
