"""Which part of which parameter this rank owns, at any ZeRO stage.

DeepSpeed keeps its fp32 weights in flat buffers whose layout depends on the stage and the number of
ranks. This is the only module that knows that layout; the EMA, checkpoints and resharding are
written in terms of fragments.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Fragment:
    """A run of consecutive elements of one flattened parameter, owned by this rank."""

    name: str
    start: int
    """First element within the flattened parameter."""

    numel: int
    shape: tuple[int, ...]
    """Shape of the whole parameter."""

    buffer: int
    """Which flat buffer holds it."""

    offset: int
    """Where in that buffer."""

    def view(self, buffers: list[Tensor]) -> Tensor:
        """This fragment's part of buffers laid out like the fp32 ones."""
        return buffers[self.buffer].narrow(0, self.offset, self.numel)


class Shards:
    """The fp32 weights and Adam moments of one trained DeepSpeed engine, on this rank."""

    def __init__(self, engine: Any) -> None:
        self._zero = engine.optimizer
        self.is_stage_3 = hasattr(self._zero, "fp32_partitioned_groups_flat")
        self.fragments = list(self._locate(engine.module))

    @property
    def weights(self) -> list[Tensor]:
        """The flat fp32 buffers, by reference."""
        for name in (
            "fp32_partitioned_groups_flat",
            "single_partition_of_fp32_groups",
            "fp32_groups_flat_partition",
        ):
            if hasattr(self._zero, name):
                return list(getattr(self._zero, name))
        raise TypeError(f"no known fp32 buffers in {type(self._zero).__name__}")

    def moments(self) -> dict[str, list[Tensor]]:
        """Adam's two running means, laid out like ``weights``; zero before the first update."""
        for flat in self.weights:
            state = self._adam_state(flat)
            state.setdefault("step", torch.tensor(0.0))
            for key in ("exp_avg", "exp_avg_sq"):
                if key not in state:
                    state[key] = torch.zeros_like(flat.data)
        return {
            key: [self._adam_state(flat)[key] for flat in self.weights]
            for key in ("exp_avg", "exp_avg_sq")
        }

    def set_update_count(self, count: int) -> None:
        """Tell Adam how many updates its moments have seen."""
        for flat in self.weights:
            self._adam_state(flat)["step"] = torch.tensor(float(count))

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the fp32 weights into the weights the network computes with.

        Collective: ranks exchange their parts.
        """
        if not self.is_stage_3:
            self._zero.update_lp_params()
            return
        for group in range(len(self._zero.fp32_partitioned_groups_flat)):
            self._zero._reassign_or_swap_out_partitioned_parameters(group)
        # Whole copies made before are stale, and gathering skips what is already whole.
        self._zero.parameter_offload.partition_all_parameters()
        if small := self._zero.persistent_parameters:
            small[0].all_gather(small)

    @torch.no_grad()
    def exchange(self, buffers: list[Tensor]) -> None:
        """Collective: swap the weights with buffers laid out like them, and publish."""
        for other, weight in zip(buffers, self.weights, strict=True):
            held = weight.detach().clone()
            weight.data.copy_(other)
            other.copy_(held)
        self.publish()

    def _adam_state(self, flat: Tensor) -> dict[str, Tensor]:
        return self._zero.optimizer.state[flat]

    def _locate(self, module: torch.nn.Module) -> Iterator[Fragment]:
        for name, parameter in module.named_parameters():
            found = self._partitioned(parameter) if self.is_stage_3 else self._mapped(parameter)
            if found is not None:
                start, numel, shape, buffer, offset = found
                yield Fragment(name, start, numel, shape, buffer, offset)

    def _partitioned(self, parameter: Any) -> tuple[int, int, tuple[int, ...], int, int] | None:
        """Stage 3: every parameter is cut into equal parts, the last one padded."""
        buffer, offset, size = self._zero.grad_position[self._zero.get_param_id(parameter)]
        start = torch.distributed.get_rank(self._zero.dp_process_group) * size
        numel = min(size, parameter.ds_numel - start)
        if numel <= 0:
            return None
        return start, numel, tuple(parameter.ds_shape), buffer, offset

    def _mapped(self, parameter: Any) -> tuple[int, int, tuple[int, ...], int, int] | None:
        """Stages 1 and 2: parameters lie end to end and the whole is cut."""
        mapping = parameter._hp_mapping
        if mapping is None:
            return None
        here, there = mapping.lp_fragment_address, mapping.hp_fragment_address
        buffer = mapping.param_group_index
        return here.start, here.numel, tuple(parameter.shape), buffer, there.start
