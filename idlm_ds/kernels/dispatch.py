"""Which form of an operator runs: the reference, or Triton.

Chosen once at the start of a program and said aloud. Without a choice it is ``auto``.
"""

import functools
import importlib
from collections.abc import Callable, Iterable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from idlm_ds.errors import UserError

Choice = Literal["auto", "reference", "triton"]

P = ParamSpec("P")
T = TypeVar("T")

_choice: Choice = "auto"


def choose(choice: Choice, device: torch.device) -> str:
    """Choose for the rest of the program.

    Args:
        choice: ``auto`` takes Triton on a GPU where it is installed.
        device: Where the networks are.

    Returns:
        A line that says what was chosen.

    Raises:
        UserError: Triton was asked for and cannot run.
    """
    global _choice
    if choice == "triton" and (problem := _problem(device)):
        raise UserError(f"train.kernels: triton {problem}; use auto or reference")
    _choice = choice
    return describe(device)


def describe(device: torch.device) -> str:
    """Say which form runs on a device, in a line."""
    if not _takes_triton(device):
        return "kernels: reference"
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "its interpreter"
    return f"kernels: triton {version('triton')} on {where}"


def dispatched(reference: Callable[P, T]) -> Callable[P, T]:
    """Wrap the reference of an operator, so that a call may run its form in Triton.

    The other form has the same name, in ``triton_impl.py`` beside the reference, and is imported
    at the first use.
    """
    module = f"{reference.__module__.rpartition('.')[0]}.triton_impl"

    @functools.wraps(reference)
    def operator(*args: P.args, **kwargs: P.kwargs) -> T:
        if not _takes_triton(_device_of((*args, *kwargs.values()))):
            return reference(*args, **kwargs)
        fused = getattr(importlib.import_module(module), reference.__name__)
        return cast(T, fused(*args, **kwargs))

    return operator


def _device_of(arguments: Iterable[Any]) -> torch.device:
    return next(value.device for value in arguments if isinstance(value, Tensor))


def _takes_triton(device: torch.device) -> bool:
    if _choice == "auto":
        return device.type == "cuda" and _is_installed()
    return _choice == "triton"


def _problem(device: torch.device) -> str | None:
    if not _is_installed():
        return "is not installed"
    if device.type != "cuda" and not is_interpreted():
        return f"needs a GPU, and the networks are on {device.type}"
    return None


@functools.cache
def _is_installed() -> bool:
    return find_spec("triton") is not None


@functools.cache
def is_interpreted() -> bool:
    """Return whether Triton was imported for its interpreter, which runs on a CPU."""
    from triton.runtime.jit import JITFunction

    from idlm_ds.kernels.online import grow

    return not isinstance(grow, JITFunction)
