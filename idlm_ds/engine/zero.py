"""ZeRO's insides: the only module that reads how DeepSpeed lays out what it shards.

Parameters that stage 3 has cut, fp32 weights in flat buffers and Adam's state are reached through
the functions and classes here; EMA, checkpoints, exports and resharding are written in their terms.
The prefetcher is the business of ``gathers.py``.
"""

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from idlm_ds.engine.backend import deepspeed


def whole_shape(parameter: Any) -> tuple[int, ...]:
    """Return the shape of a parameter, cut into parts or not."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


@dataclass(frozen=True, slots=True)
class LocalPart:
    """The elements of one flattened parameter that this rank computes with."""

    data: Tensor
    """Flat storage; at stage 3 padded to the same size on every rank."""

    start: int
    stop: int

    def fill(self, values: Tensor) -> None:
        """Set the elements; padding, which held whatever memory did, becomes zero."""
        count = self.stop - self.start
        self.data[:count].copy_(values)
        self.data[count:].zero_()


def local_part(parameter: Any) -> LocalPart:
    """Return what this rank holds of a parameter: all of it, but for stage 3."""
    if not hasattr(parameter, "ds_tensor"):
        return LocalPart(parameter.data.view(-1), 0, parameter.numel())
    size, numel = parameter.ds_tensor.ds_numel, parameter.ds_numel
    start = min(torch.distributed.get_rank(parameter.ds_process_group) * size, numel)
    return LocalPart(parameter.ds_tensor.data, start, min(start + size, numel))


def are_cut_alike(first: Any, second: Any) -> bool:
    """Tell whether each rank holds the same elements of two parameters of one shape.

    The answer is that of every rank: it is yes where neither is cut, or all ranks share both.
    """
    shares = [_is_shared_by_all(p) if hasattr(p, "ds_tensor") else None for p in (first, second)]
    return shares in ([None, None], [True, True])


def _is_shared_by_all(parameter: Any) -> bool:
    sharing = torch.distributed.get_world_size(parameter.ds_process_group)
    return bool(sharing == torch.distributed.get_world_size())


def gathered(parameter: nn.Parameter) -> AbstractContextManager[None]:
    """Hold a parameter whole inside the block, for reading.

    Collective: every rank must enter.
    """
    is_cut = hasattr(parameter, "ds_id")
    return deepspeed.zero.GatheredParameters([parameter] if is_cut else [])


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
    """Index of the flat buffer that holds it."""

    offset: int
    """First element within that buffer."""

    def view(self, buffers: list[Tensor]) -> Tensor:
        """Return this fragment's part of buffers laid out like the fp32 ones."""
        return buffers[self.buffer].narrow(0, self.offset, self.numel)


class Shards:
    """The fp32 weights and Adam moments of one trained DeepSpeed engine, on this rank."""

    def __init__(self, engine: Any, trainable: Collection[str]) -> None:
        self._zero = engine.optimizer
        self.is_stage_3 = hasattr(self._zero, "fp32_partitioned_groups_flat")
        self.shapes = {
            name: whole_shape(parameter)
            for name, parameter in engine.module.named_parameters()
            if name in trainable
        }
        """Shapes of all trained parameters, whichever rank owns them."""

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
        """Return Adam's two running means, laid out like ``weights``; zero before any update."""
        for flat in self.weights:
            state = self._adam_state(flat)
            state.setdefault("step", torch.tensor(0.0, device=flat.device))
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
            self._adam_state(flat)["step"] = torch.tensor(float(count), device=flat.device)

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
        """Swap the weights with buffers laid out like them, and publish.

        Collective: every rank must call.
        """
        for other, weight in zip(buffers, self.weights, strict=True):
            held = weight.detach().clone()
            weight.data.copy_(other)
            other.copy_(held)
        self.publish()

    def _adam_state(self, flat: Tensor) -> dict[str, Tensor]:
        return self._zero.optimizer.state[flat]

    def _locate(self, module: nn.Module) -> Iterator[Fragment]:
        for name, parameter in module.named_parameters():
            if name not in self.shapes:
                continue
            place = self._partitioned(parameter) if self.is_stage_3 else self._mapped(parameter)
            if place is not None:
                start, numel, buffer, offset = place
                yield Fragment(name, start, numel, self.shapes[name], buffer, offset)

    def _partitioned(self, parameter: Any) -> tuple[int, int, int, int] | None:
        """Stage 3 cuts every parameter into equal parts and pads the last one."""
        buffer, offset, size = self._zero.grad_position[self._zero.get_param_id(parameter)]
        start = torch.distributed.get_rank(self._zero.dp_process_group) * size
        numel = min(size, parameter.ds_numel - start)
        if numel <= 0:
            return None
        return start, numel, buffer, offset

    def _mapped(self, parameter: Any) -> tuple[int, int, int, int] | None:
        """Stages 1 and 2 lay parameters end to end and cut the whole."""
        mapping = parameter._hp_mapping
        if mapping is None:
            return None
        here, there = mapping.lp_fragment_address, mapping.hp_fragment_address
        return here.start, here.numel, mapping.param_group_index, there.start
