"""What a pickle may name, and the harmless values that stand for it.

A pickle names classes and functions and asks for them to be called. Here nothing it names is ever
imported, looked up or called. Of the names on the lists below, those that rebuild tensors and plain
containers are understood; every other one on them becomes an ``Inert`` record. A name that is on no
list refuses the file.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

STORAGES: Mapping[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8")

PLAIN = {"bool", "bytearray", "bytes", "complex", "float", "int", "long", "str", "unicode"}
CONTAINERS = {"dict", "frozenset", "list", "object", "range", "set", "slice", "tuple"}
NAMES: Mapping[str, frozenset[str]] = {
    "_codecs": frozenset({"encode"}),
    "argparse": frozenset({"Namespace"}),
    "builtins": frozenset(PLAIN | CONTAINERS),
    "collections": frozenset({"Counter", "OrderedDict", "defaultdict", "deque"}),
    "copyreg": frozenset({"_reconstructor"}),
    "datetime": frozenset({"date", "datetime", "timedelta", "timezone"}),
    "numpy": frozenset({"dtype", "ndarray"}),
    "numpy.core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "numpy._core.multiarray": frozenset({"_reconstruct", "scalar"}),
    "re": frozenset({"_compile"}),
    "torch": frozenset({*STORAGES, *DTYPES, "Size", "bool", "device"}),
    "torch._utils": frozenset({"_rebuild_parameter", "_rebuild_tensor", "_rebuild_tensor_v2"}),
    "types": frozenset({"SimpleNamespace"}),
}
"""Admitted one by one, by module."""

LIGHTNING = {"lightning", "lightning_fabric", "lightning_utilities", "pytorch_lightning"}
PACKAGES = frozenset(
    LIGHTNING
    | {"dataloader", "omegaconf", "pathlib", "tokenizers", "torchmetrics", "transformers", "typing"}
)
"""Packages of which any class is admitted; ``dataloader`` holds tokenizers of MDLM and Duo."""

CLASS_NAME = re.compile(r"[A-Z]\w*(\.[A-Z]\w*)*", re.ASCII)
MODULE_NAME = re.compile(r"\w+(\.\w+)*", re.ASCII)
SHORT = 8
"""Most dimensions of a tensor, and most parts of a key; whatever is done to them takes no time."""

STORAGE_KEY = re.compile(r"[0-9]{1,19}", re.ASCII)

PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class Refused(Exception):
    """A pickle asks for something that no weights need."""


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function by name, and nothing more."""

    module: str
    name: str


@dataclass(eq=False, slots=True)
class Inert:
    """What would have been an object, with what the pickle says of its content."""

    kind: Global
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """A run of numbers kept in a file of its own beside the pickle."""

    key: str
    dtype: torch.dtype
    numel: int


@dataclass(frozen=True, eq=False, slots=True)
class StoredTensor:
    """A view of a storage, within its bounds."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def admit(module: str, name: str) -> Global:
    """Take a name in, if it is on a list.

    Raises:
        Refused: It is on none.
    """
    module = PYTHON_2.get(module, module)
    if len(module) + len(name) > 200:
        raise Refused("its pickle has a name of more than 200 letters")
    is_class = (
        module.split(".")[0] in PACKAGES
        and MODULE_NAME.fullmatch(module) is not None
        and CLASS_NAME.fullmatch(name) is not None
    )
    if not is_class and name not in NAMES.get(module, ()):
        raise Refused(f"its pickle names {ascii(f'{module}.{name}')[1:-1]}")
    return Global(module, name)


def construct(called: Any, arguments: Any) -> Any:
    """Return the value that stands for a call, which does not take place.

    Raises:
        Refused: What is called is not an admitted name.
        ValueError: The arguments are not those of a saved tensor or container.
    """
    if not isinstance(called, Global) or not isinstance(arguments, tuple):
        raise Refused("its pickle calls something that is not an admitted name")
    build = UNDERSTOOD.get(called)
    return Inert(called, arguments) if build is None else build(*arguments[:SHORT])


def storage(record: Any) -> Storage:
    """Read a reference to a storage.

    Raises:
        Refused: It refers to anything else.
    """
    match record:
        case ("storage", Global(module="torch", name=kind), str(key), str(), int(numel)):
            if kind in STORAGES and STORAGE_KEY.fullmatch(key) and 0 <= numel < 2**48:
                return Storage(key, STORAGES[kind], numel)
    raise Refused("its pickle refers to data that are not a tensor of this file")


def _tensor(
    data: Any, offset: Any, shape: Any, strides: Any, *rest: Any
) -> StoredTensor:  # rest: requires_grad, hooks, metadata
    if not isinstance(data, Storage) or not isinstance(shape, tuple) or any(rest[2:]):
        raise ValueError("a tensor that is not dense")
    if not isinstance(strides, tuple) or not len(strides) == len(shape) <= SHORT:
        raise ValueError("a tensor without strides")
    if not all(type(n) is int and 0 <= n < 2**48 for n in (offset, *shape, *strides)):
        raise ValueError("a tensor with impossible sizes")
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    numel = math.prod(shape)
    if numel > data.numel or (numel and last >= data.numel):
        raise Refused("a tensor reaches beyond its data")
    return StoredTensor(data, offset, shape, strides)


UNDERSTOOD: Mapping[Global, Callable[..., Any]] = {
    Global("collections", "OrderedDict"): lambda: {},
    Global("torch._utils", "_rebuild_parameter"): lambda data, *rest: data,
    Global("torch._utils", "_rebuild_tensor"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
}


def usable_key(key: Any) -> Any:
    """Return a dictionary key that takes no time to hash and to find.

    Raises:
        Refused: It is nested or huge; a few of those can keep a dictionary busy for ever.
    """
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) <= SHORT and all(_is_plain(part) for part in parts):
        return key
    raise Refused("its pickle has a dictionary with nested or huge keys")


def _is_plain(part: Any) -> bool:
    if isinstance(part, int):
        return part.bit_length() < 61
    return part is None or isinstance(part, (str, bytes, Global, Inert))
