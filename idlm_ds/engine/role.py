"""One network and the DeepSpeed engine around it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, final

from torch import Tensor, nn

from idlm_ds.checkpoints.rank_files import RUNNING_MEAN
from idlm_ds.engine.backend import deepspeed
from idlm_ds.engine.config import AdamW, EngineJson, Numerics
from idlm_ds.engine.cpu_adam import offloaded_adam
from idlm_ds.engine.ema import Ema
from idlm_ds.engine.gathers import Gathers, Purpose
from idlm_ds.engine.sharing import Groups, is_whole, own_group
from idlm_ds.engine.trio import StepReport
from idlm_ds.engine.weights import WeightSource, fill_weights
from idlm_ds.engine.zero import Shards


class Role:
    """A network inside an engine, at rest: no parameter takes a gradient, nothing drops out.

    It is used through ``module``: an engine hooks its outputs, and the hooks of an idle engine
    either raise in another one's backward or spoil its own next gradient without a word.
    """

    def __init__(self, name: str, engine: Any) -> None:
        self.name = name
        self._engine = engine
        self._gathers = Gathers(engine)
        engine.module.requires_grad_(False)
        engine.module.eval()

    @property
    def module(self) -> nn.Module:
        """The bare network."""
        return self._engine.module

    @contextmanager
    def lent(self) -> Iterator[nn.Module]:
        """Lend the bare network to another one's loss."""
        with self._used_for(Purpose.LEND):
            yield self.module

    def release(self) -> None:
        """Give back weights that a finished pass left whole."""
        self._gathers.release()

    def release_all(self) -> None:
        """Give back every whole weight, before the shards change."""
        self._gathers.release_all()

    @contextmanager
    def _used_for(self, purpose: Purpose) -> Iterator[None]:
        self._gathers.begin(purpose)
        try:
            yield
        finally:
            self._gathers.begin(Purpose.SAMPLE)


@final
class FrozenRole(Role):
    """A network that never learns."""

    def reload(self, source: WeightSource) -> None:
        """Put other weights into it."""
        self.release_all()
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
        with self._taking_gradients():
            self.module.train()
            try:
                with self._used_for(Purpose.LEARN):
                    yield self._forward
            finally:
                self.module.eval()

    @contextmanager
    def _taking_gradients(self) -> Iterator[None]:
        for name, parameter in self.module.named_parameters():
            parameter.requires_grad_(name in self.trainable)
        try:
            yield
        finally:
            self.module.requires_grad_(False)

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
        with self._taking_gradients():
            # At stage 2 with offloading DeepSpeed drops gradients of parameters that take none.
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
    groups: Groups | None = None,
) -> FrozenRole:
    """Build a network that never learns, load it and put an engine around it.

    Collective: every rank must call.

    Args:
        name: The role, for messages.
        make: Builds the network; its values are overwritten.
        source: Where weights come from.
        json: The engine file; below stage 3 every rank has the whole network.
        numerics: Batch and precision.
        groups: At stage 3, ranks by the copy they share; None = all share one.
    """
    fields = json.frozen(numerics)
    if is_whole(groups):
        fields["zero_optimization"] = {"stage": 0}
    module = _loaded(make, source, fields, groups).requires_grad_(False)
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
    engine, *_ = deepspeed.initialize(
        model=module,
        config=fields,
        model_parameters=learning,
        optimizer=offloaded_adam(json, optimizer),
    )
    return TrainedRole(name, engine, ema_decay=ema_decay)


def _loaded(
    make: Callable[[], nn.Module],
    source: WeightSource,
    fields: dict[str, Any],
    groups: Groups | None = None,
) -> nn.Module:
    """Build and fill a network.

    At stage 3 it is built already sharded and every rank reads only its own part of each tensor,
    so no process ever holds the whole.
    """
    if fields["zero_optimization"]["stage"] < 3:
        module = make()
    else:
        group = None if groups is None else own_group(groups)
        with deepspeed.zero.Init(config_dict_or_path=fields, data_parallel_group=group):
            module = make()
    fill_weights(module, source)
    return module
