"""Names for parts of a step, put around them while a profile is taken."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from inspect import isgeneratorfunction
from typing import Any
from unittest.mock import patch

from torch import nn
from torch.profiler import record_function

from idlm_ds import noise

TRUNK, DRAWS = "trunk", "draws"


@contextmanager
def labelled(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Label the trunks of networks and everything random."""
    with ExitStack() as stack:
        for network in networks:
            stack.enter_context(patch.object(network, "forward", _as_trunk(network.forward)))
        for owner, name in _draws():
            inner = getattr(owner, name)
            label = _as_draws if isgeneratorfunction(inner) else _as_draw
            stack.enter_context(patch.object(owner, name, label(inner)))
        yield


def _as_trunk(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Label a forward pass until the head is read."""

    @wraps(forward)
    def run(x: Any, sigma: Any, read: Callable[[Any], Any]) -> Any:
        label = record_function(TRUNK)
        label.__enter__()

        def after(head: Any) -> Any:
            label.__exit__(None, None, None)
            return read(head)

        return forward(x, sigma, after)

    return run


def _as_draw(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with record_function(DRAWS):
            return function(*args, **kwargs)

    return run


def _as_draws(generator: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Label every step of a generator, and nothing that its caller does in between."""

    @wraps(generator)
    def run(*args: Any, **kwargs: Any) -> Iterator[Any]:
        draws = generator(*args, **kwargs)
        step = _as_draw(partial(next, draws, None))
        while (drawn := step()) is not None:
            yield drawn

    return run


def _draws() -> Iterator[tuple[Any, str]]:
    """Yield the functions that draw, wherever a module of the package has imported them."""
    yield from ((noise.Noise, name) for name in ("uniform", "normal", "normal_blocks"))
    for module_name, module in list(sys.modules.items()):
        if not module_name.startswith("idlm_ds."):
            continue
        for name, value in list(vars(module).items()):
            home = getattr(value, "__module__", None)
            if name.startswith("draw") and callable(value) and home == noise.__name__:
                yield module, name
