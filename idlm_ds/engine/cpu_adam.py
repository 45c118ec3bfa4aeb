"""Adam of DeepSpeed for state that is offloaded from a GPU: its operator, and exact resumption.

The operator is C++ that DeepSpeed compiles when it is first needed, under a lock on which a later
run waits for ever once a build was killed. Here it is compiled in a process and a folder of its
own, for a limited time, and put in place whole; no lock is taken or waited for.
"""

import hashlib
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from idlm_ds.console import say
from idlm_ds.engine.backend import deepspeed
from idlm_ds.engine.config import AdamW, EngineJson

LIMIT_S = 600.0
"""Longest time a build may take; it takes a minute and a half of one core."""

_NAME = "cpu_adam"
_BUILD = "from deepspeed.ops.op_builder import CPUAdamBuilder as B; B().load(verbose=False)"


class CpuAdam(deepspeed.ops.adam.DeepSpeedCPUAdam):
    """DeepSpeed's operator, with updates that depend on nothing but the saved state.

    By itself it multiplies powers of the decay rates up from update to update, and computes them
    anew in a resumed run, which rounds otherwise.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """See base class."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state.get(parameter, {})
                if "step" in state:
                    state["step"] = int(state["step"])
        first = self.param_groups[0]
        rates = (first["lr"], *first["betas"], first["eps"], first["weight_decay"])
        self.ds_opt_adam.create_adam(self.opt_id, *rates, self.adam_w_mode, False)
        return super().step(closure)


def offloaded_adam(json: EngineJson, settings: AdamW) -> Callable[[Iterable[Any]], CpuAdam] | None:
    """Return what makes the optimizer of an offloaded role; None where torch's is used.

    Without a GPU nothing is moved by offloading, and torch's fused AdamW is as fast.

    Collective: every rank must call.
    """
    if not (json.offloads_optimizer and has_gpu()) or operator_problem():
        return None
    return lambda parameters: CpuAdam(
        parameters,
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
    )


def has_gpu() -> bool:
    """Whether there is something to offload from."""
    return torch.cuda.is_available()


@cache
def operator_problem() -> str:
    """Load the operator on every rank, built first where it has to be, and say what is used.

    Collective: every rank must call.

    Returns:
        Why it cannot be used on every rank; empty where it can.
    """
    is_first_of_node = os.environ.get("LOCAL_RANK", "0") == "0"
    if dist.get_rank() == 0 and not _is_built() and not _missing():
        say("optimizer on the CPU: building DeepSpeed's, once on this machine; a minute or more")
    problem = _first(build_operator() if is_first_of_node else "") or _first(_load())
    if dist.get_rank() == 0:
        used = f"torch's AdamW, as DeepSpeed's {problem}" if problem else "DeepSpeedCPUAdam"
        say(f"optimizer on the CPU: {used}")
    return problem


def build_operator() -> str:
    """Compile the operator where it is not yet; return what is wrong, if anything."""
    if _is_built():
        return ""
    if missing := _missing():
        return f"cannot be built without {missing}"
    try:
        with tempfile.TemporaryDirectory(prefix=f"{_NAME}-") as folder:
            problem = _compile(folder)
            if not problem:
                _put_in_place(Path(folder) / _NAME / f"{_NAME}.so")
            return problem
    except OSError as error:
        return f"could not be built: {error.strerror}"


def _missing() -> str:
    """Return the first program that a build lacks."""
    programs = (os.environ.get("CXX", "c++"), "ninja")
    return next((name for name in programs if shutil.which(name) is None), "")


def _compile(folder: str) -> str:
    environment = os.environ | {"TORCH_EXTENSIONS_DIR": folder, "DEEPSPEED_LOG_LEVEL": "error"}
    builder = subprocess.Popen(
        [sys.executable, "-c", _BUILD],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = builder.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"was not built within {LIMIT_S:g} s"
    finally:
        if builder.poll() is None:
            os.killpg(builder.pid, signal.SIGKILL)
            builder.wait()
    return f"failed to build with {os.environ.get('CXX', 'c++')}" if code else ""


def _put_in_place(built: Path) -> None:
    target = _file()
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(f".{os.getpid()}")
    shutil.copyfile(built, beside)
    os.replace(beside, target)


def _load() -> str:
    builder = deepspeed.ops.op_builder.CPUAdamBuilder()
    try:
        if _is_prebuilt():
            builder.load()
            return ""
        spec = importlib.util.spec_from_file_location(_NAME, _file())
        assert spec is not None
        assert spec.loader is not None
        operator = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(operator)
    except (ImportError, OSError, RuntimeError) as error:
        return f"does not load: {str(error).splitlines()[0][:80]}"
    # Where its builder looks first.
    builder._loaded_ops[_NAME] = operator
    return ""


def _is_built() -> bool:
    return _is_prebuilt() or _file().exists()


def _is_prebuilt() -> bool:
    """Whether DeepSpeed was installed with the operator (``DS_BUILD_CPU_ADAM=1``)."""
    built = deepspeed.git_version_info
    device = deepspeed.accelerator.get_accelerator()._name
    return bool(built.installed_ops.get(_NAME, False)) and built.accelerator_name == device


@cache
def _file() -> Path:
    """Where the operator for these versions and this processor is."""
    from torch.utils.cpp_extension import get_default_build_root

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    processor = "".join(line for line in lines if line.startswith(("flags", "Features")))[:5000]
    parts = (platform.machine(), processor, sys.version, torch.__version__, deepspeed.__version__)
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root()
    return Path(root) / "idlm_ds" / key / f"{_NAME}.so"


def _first(problem: str) -> str:
    """Return the first rank's problem that has one."""
    problems: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(problems, problem)
    return next(filter(None, problems), "")
