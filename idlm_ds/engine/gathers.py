"""What ZeRO-3 gathers for a network, and in which order: one trace of its modules for each use.

Stage 3 notes the order of modules in one forward and backward pass, and in later passes gathers the
weights of the next modules ahead. DeepSpeed keeps one such trace a network. Here a network is used
in three ways, each with another order; with one trace each change throws it away, or gathers ahead
for a backward pass that never comes.
"""

from enum import Enum
from functools import cache
from inspect import getclosurevars
from typing import Any, final

from idlm_ds.console import say
from idlm_ds.engine.backend import deepspeed

OffloadDeviceEnum = deepspeed.runtime.zero.offload_config.OffloadDeviceEnum
ZeroParamStatus = deepspeed.runtime.zero.partition_parameters.ZeroParamStatus

CHECKED = ("0.19.8",)
"""Releases of DeepSpeed whose traces can be exchanged as it is done here."""


class Purpose(Enum):
    """What a network is run for."""

    LEARN = "learn"
    """Forward and backward, to its parameters."""

    LEND = "lend"
    """In another network's loss: forward, and backward to its input where a family wants that."""

    SAMPLE = "sample"
    """Forward, between phases: samples and held-out losses."""


@final
class Gathers:
    """The weights that stage 3 holds whole for one engine; below stage 3 there are none."""

    def __init__(self, engine: Any) -> None:
        offload = getattr(engine.optimizer, "parameter_offload", engine.optimizer)
        self._offload: Any = offload if hasattr(offload, "release_backward_leftovers") else None
        self._coordinators: dict[Purpose, Any] = {}
        if self._offload is not None and _is_checked(deepspeed.__version__):
            own = self._offload.param_coordinator
            learn, lend = _another(own, self._offload), _another(own, self._offload)
            self._coordinators = {Purpose.SAMPLE: own, Purpose.LEARN: learn, Purpose.LEND: lend}

    def begin(self, purpose: Purpose) -> None:
        """Gather by the trace of a use from now on; no graph of another use may be open.

        With a release of DeepSpeed that has not been checked, all uses share one trace.
        """
        self.release()
        if self._coordinators:
            self._offload.param_coordinator = self._coordinators[purpose]
            _forget_decisions(self._coordinators[purpose])

    def release(self) -> None:
        """Give back what a finished pass left whole or in flight, but for what stage 3 keeps.

        That is little where each use has a trace of its own. With one trace the prefetcher fetches
        ahead into a backward pass that never comes and keeps what it skipped; there all is given
        back.
        """
        if not self._coordinators:
            self.release_all()
            return
        self._offload.release_backward_leftovers()
        in_flight = self._offload.module.ds_inflight_param_registry
        for parameter in self._offload.module.parameters():
            if parameter in in_flight:
                in_flight.pop(parameter).wait()
            if parameter.ds_status is ZeroParamStatus.AVAILABLE and not parameter.ds_persist:
                parameter.ds_active_sub_modules.clear()
                parameter.partition()

    def release_all(self) -> None:
        """Give back every whole weight; one that stays would not follow a change of the shards."""
        if self._offload is not None:
            self._offload.release_backward_leftovers()
            self._offload.partition_all_parameters()


def _another(coordinator: Any, offload: Any) -> Any:
    """Make a coordinator with the settings of an engine's own and no trace yet."""
    return type(coordinator)(
        prefetch_bucket_sz=offload._prefetch_bucket_sz,
        max_reuse_distance_in_numel=offload._max_reuse_distance_in_numel,
        max_available_parameters_in_numel=offload._max_available_parameters_in_numel,
        allgather_stream=offload._DeepSpeedZeRoOffload__allgather_stream,
        inflight_param_registry=offload.module.ds_inflight_param_registry,
        prefetch_nvme=offload.offload_device == OffloadDeviceEnum.nvme,
        timers=offload.timers,
        zero_quantized_weights=offload.zero_quantized_weights,
        zero_quantized_nontrainable_weights=offload.zero_quantized_nontrainable_weights,
        fast_sharding_for_leaf_module=offload.fast_sharding_for_leaf_module,
        log_trace_cache_warnings=offload.log_trace_cache_warnings,
    )


def _forget_decisions(coordinator: Any) -> None:
    """Let coordinators decide anew which weights a module gives back.

    They remember what they decided in the first pass that gathered ahead. It had to gather more
    than later ones, which would give back weights that they do not gather again in time.
    """
    decide = type(coordinator)._PartitionedParameterCoordinator__params_to_release
    getclosurevars(decide).nonlocals["func"].cache_clear()


@cache
def _is_checked(version: str) -> bool:
    """Look a release up; said once if it is not known."""
    if version.partition("+")[0] in CHECKED:
        return True
    if deepspeed.comm.get_rank() == 0:
        say(
            f"engines: DeepSpeed {version} has not been checked (only {', '.join(CHECKED)}): "
            "one trace of gathers a network, slower, with the same numbers"
        )
    return False
