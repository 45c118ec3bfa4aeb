"""Published models, and this package's own: what they are, and their weights slice by slice."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from idlm_ds.checkpoints.formats import folders, training_files
from idlm_ds.checkpoints.formats.description import LAYOUTS, Description, Found, PublicModel
from idlm_ds.checkpoints.formats.layouts import (
    PLANS,
    ROTARY,
    Plan,
    Shapes,
    infer_sizes,
    listed,
    own_name,
    problems,
)
from idlm_ds.checkpoints.model_folder import CONFIG
from idlm_ds.checkpoints.pickle_reader.torch_file import TorchFile, TorchWeights
from idlm_ds.checkpoints.tensors import NamedTensors, Renamed
from idlm_ds.errors import UserError

PICKLED = (".ckpt", ".pt", ".pth", ".bin")


def detect(path: Path) -> str:
    """Say which of ``LAYOUTS`` a path has.

    Raises:
        UnsafeCheckpointError: Reading it the usual way could run code.
        UserError: It has none of them, or is damaged.
    """
    return _open(path)[0]


def read_public(path: Path, *, prefer_ema: bool = True) -> PublicModel:
    """Open a model. No code in it is executed, and no weight is read yet.

    Args:
        path: A folder or a file.
        prefer_ema: Take the running mean where training kept one.

    Raises:
        UnsafeCheckpointError: Reading it the usual way could run code.
        UserError: It is damaged, or its tensors do not fit the network; all that is wrong with
            them is in the one message.
    """
    layout, content = _open(path)
    if isinstance(content, TorchFile):
        found = training_files.read_training_file(path, layout, content)
    else:
        found = folders.read_folder(path, layout, content)
    return _assemble(found, prefer_ema=prefer_ema)


def _open(path: Path) -> tuple[str, Mapping[str, Any] | TorchFile]:
    content: Mapping[str, Any] | TorchFile
    layout = None
    if path.is_dir():
        content = folders.read_json(path / CONFIG)
        layout = folders.find_layout(content)
    elif path.suffix in PICKLED:
        content = TorchFile(path)
        layout = training_files.find_layout(content)
    elif not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if layout is None:
        beside = path.is_file() and (path.parent / CONFIG).is_file()
        hint = f"; give its folder, {path.parent}" if beside else ""
        raise UserError(f"{path}: not one of: {', '.join(LAYOUTS.values())}{hint}")
    return layout, content


def _assemble(found: Found, *, prefer_ema: bool) -> PublicModel:
    plan = PLANS[found.kind]
    places, troubles = _own_places(found)
    raw = Renamed(str(found.path), places)
    sizes = infer_sizes(plan, raw, found.stated.sizes)
    expected = plan.shapes(sizes)
    troubles += problems(plan, expected, raw)
    weights: NamedTensors = raw
    if is_ema := prefer_ema and found.shadow is not None:
        weights, more = _running_mean(found, plan, expected)
        troubles += more
    arguments, more = _arguments(found, raw, sizes)
    troubles += more
    if troubles:
        raise UserError(f"{found.path}: does not fit its network: {'; '.join(troubles)}")

    stated = found.stated
    about = Description(
        layout=found.layout,
        kind=found.kind,
        family=stated.family,
        process={**stated.process, **({"name": stated.family} if stated.family else {})},
        sizes=arguments,
        vocab_size=sizes["vocab_size"],
        mask_id=stated.mask(sizes["vocab_size"]),
        length=stated.length,
        dtype=", ".join(sorted({str(weights.dtype(n)).removeprefix("torch.") for n in expected})),
        parameters=sum(math.prod(shape) for shape in expected.values()),
        ema=found.ema,
        is_ema=is_ema,
        stripped=_stripped(found.tensors),
        ignored=(*found.ignored, *(at[1] for name, at in places.items() if name not in expected)),
        files=found.files,
    )
    return PublicModel(about, Renamed(raw.label, {name: (weights, name) for name in expected}))


def _own_places(found: Found) -> tuple[dict[str, tuple[NamedTensors, str]], list[str]]:
    places: dict[str, tuple[NamedTensors, str]] = {}
    twice = []
    for stored, source in found.tensors.items():
        name = own_name(stored)
        if name in places:
            twice.append(name)
        places[name] = (source, stored)
    return places, [*found.troubles, *([f"there twice {listed(twice)}"] if twice else [])]


def _running_mean(found: Found, plan: Plan, expected: Shapes) -> tuple[TorchWeights, list[str]]:
    assert found.shadow is not None
    file, shadow = found.shadow
    mean = TorchWeights(file, dict(zip(expected, shadow, strict=False)))
    if len(shadow) != len(expected):
        return mean, [f"its running mean has {len(shadow)} tensors, not {len(expected)}"]
    return mean, [f"in its running mean {line}" for line in problems(plan, expected, mean)]


def _arguments(
    found: Found, raw: NamedTensors, sizes: Mapping[str, int]
) -> tuple[dict[str, Any], list[str]]:
    """Arguments of the network's configuration class."""
    hidden = sizes["hidden"]
    heads, troubles = _heads(found.stated.sizes.get("heads"), raw.shape(ROTARY), hidden)
    arguments: dict[str, Any] = {**sizes, "heads": heads, **found.stated.options}
    if unknown := sorted(name for name, size in sizes.items() if size < 1):
        troubles.append(f"nothing tells its {', '.join(unknown)}")
    mask_id = found.stated.mask_id
    if mask_id is not None and mask_id >= sizes["vocab_size"] > 0:
        troubles.append(f"mask id {mask_id} in a vocabulary of {sizes['vocab_size']}")
    if found.kind == "dit":
        inner = arguments.pop("inner")
        if hidden > 0 and inner > 0 and inner % hidden:
            troubles.append(f"a feed-forward width of {inner} is no multiple of {hidden}")
        arguments["mlp_ratio"] = inner // hidden
        is_told_time = found.stated.is_told_time()
        arguments |= {} if is_told_time is None else {"time_conditioning": is_told_time}
    return arguments, troubles


def _heads(
    heads: int | None, rotary: tuple[int, ...] | None, hidden: int
) -> tuple[int | None, list[str]]:
    if heads is None and rotary and min(rotary) > 0:
        heads = hidden // (2 * rotary[0])
    if heads is None:
        return None, ["nothing tells its heads"]
    fits = heads > 0 and hidden % (2 * heads) == 0
    if fits and rotary:
        fits = rotary == (hidden // (2 * heads),)
    if hidden > 0 and not fits:
        half = f" of {ROTARY} {list(rotary)}" if rotary else ""
        return heads, [f"{heads} heads{half} do not fill a width of {hidden}"]
    return heads, []


def _stripped(names: Iterable[str]) -> tuple[str, ...]:
    gone = set()
    for stored in names:
        own = own_name(stored)
        gone.add(stored.removesuffix(own) if stored.endswith(own) else "_orig_mod.")
    return tuple(sorted(gone - {""}))
