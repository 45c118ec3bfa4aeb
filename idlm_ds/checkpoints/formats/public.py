"""Published models, and this package's own: what they are, and their weights slice by slice."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from idlm_ds.checkpoints.formats.base import Format, find_format
from idlm_ds.checkpoints.formats.description import Description, PublicModel, RawCheckpoint
from idlm_ds.checkpoints.formats.plans import (
    ROTARY,
    Plan,
    Shapes,
    expected_shapes,
    infer_sizes,
    listed,
    own_name,
    plan_of,
    problems,
)
from idlm_ds.checkpoints.json_files import read_json
from idlm_ds.checkpoints.model_folder import CONFIG
from idlm_ds.checkpoints.pickle_reader.torch_file import TorchFile
from idlm_ds.checkpoints.tensors import NamedTensors
from idlm_ds.errors import UserError
from idlm_ds.registry.layouts import LAYOUTS
from idlm_ds.registry.networks import NETWORKS

PICKLED = (".ckpt", ".pt", ".pth", ".bin")


def detect(path: Path) -> str:
    """Name the layout of a model.

    Raises:
        UnsafeCheckpointError: Reading it the usual way could run code.
        UserError: It has none that is known, or is damaged.
    """
    return _open(path)[0].layout.name


def read_public(path: Path, *, prefer_ema: bool = True) -> PublicModel:
    """Open a folder or file. No code in it is executed, and no weight is read yet.

    With ``prefer_ema`` the weights are the running mean, where training kept one.

    Raises:
        UnsafeCheckpointError: Reading it the usual way could run code.
        UserError: It is damaged, or its tensors do not fit the network; all that is wrong with
            them is in the one message.
    """
    layout, opened = _open(path)
    return _assemble(layout.read(path, opened), prefer_ema=prefer_ema)


def _open(path: Path) -> tuple[Format, Mapping[str, Any] | TorchFile]:
    opened: Mapping[str, Any] | TorchFile
    matching = None
    if path.is_dir():
        opened = read_json(path / CONFIG)
        matching = find_format(opened, is_file=False)
    elif path.suffix in PICKLED:
        opened = TorchFile(path)
        fields = opened.content if isinstance(opened.content, dict) else {}
        matching = find_format(fields, is_file=True)
    elif not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if matching is None:
        beside = path.is_file() and (path.parent / CONFIG).is_file()
        hint = f"; give its folder, {path.parent}" if beside else ""
        known = ", ".join(row.description for row in LAYOUTS.values())
        raise UserError(f"{path}: not one of: {known}{hint}")
    return matching, opened


def _assemble(raw: RawCheckpoint, *, prefer_ema: bool) -> PublicModel:
    plan = plan_of(raw.kind)
    stored_names, troubles = _own_names(raw)
    own = {name: raw.tensors[stored] for name, stored in stored_names.items()}
    weights = tensors = NamedTensors(str(raw.path), own)
    sizes = infer_sizes(plan, tensors, raw.stated.sizes)
    expected = expected_shapes(plan, sizes)
    troubles += problems(plan, expected, tensors)
    if is_ema := prefer_ema and raw.ema is not None:
        weights, more = _running_mean(raw, plan, expected)
        troubles += more
    arguments, more = _arguments(raw, tensors, sizes)
    troubles += more
    if troubles:
        raise UserError(f"{raw.path}: does not fit its network: {'; '.join(troubles)}")

    stated = raw.stated
    about = Description(
        layout=raw.layout,
        kind=raw.kind,
        family=stated.family,
        process={**stated.process, **({"name": stated.family} if stated.family else {})},
        sizes=arguments,
        vocab_size=sizes["vocab_size"],
        mask_id=stated.mask(sizes["vocab_size"]),
        length=stated.length,
        dtype=", ".join(sorted({str(weights.dtype(n)).removeprefix("torch.") for n in expected})),
        parameters=sum(math.prod(shape) for shape in expected.values()),
        ema=raw.ema,
        is_ema=is_ema,
        stripped=_stripped(raw.tensors),
        ignored=(*raw.ignored, *(stored_names[name] for name in own if name not in expected)),
        files=raw.files,
    )
    parameters = {name: weights.tensors[name] for name in expected}
    return PublicModel(about, NamedTensors(weights.label, parameters))


def _own_names(raw: RawCheckpoint) -> tuple[dict[str, str], list[str]]:
    """Map names of the network to stored names; also list what is wrong with them."""
    stored_names: dict[str, str] = {}
    twice = []
    for stored in raw.tensors:
        name = own_name(stored)
        if name in stored_names:
            twice.append(name)
        stored_names[name] = stored
    return stored_names, [*raw.problems, *([f"there twice {listed(twice)}"] if twice else [])]


def _running_mean(
    raw: RawCheckpoint, plan: Plan, expected: Shapes
) -> tuple[NamedTensors, list[str]]:
    mean = NamedTensors(str(raw.path), dict(zip(expected, raw.shadow, strict=False)))
    if len(raw.shadow) != len(expected):
        return mean, [f"its running mean has {len(raw.shadow)} tensors, not {len(expected)}"]
    return mean, [f"in its running mean {line}" for line in problems(plan, expected, mean)]


def _arguments(
    raw: RawCheckpoint, tensors: NamedTensors, sizes: Mapping[str, int]
) -> tuple[dict[str, Any], list[str]]:
    """Arguments of the network's configuration class."""
    hidden = sizes["hidden"]
    heads, troubles = _heads(raw.stated.sizes.get("heads"), tensors.shape(ROTARY), hidden)
    arguments: dict[str, Any] = {**sizes, "heads": heads, **raw.stated.options}
    unknown = sorted(name for name, size in sizes.items() if size < 1)
    if "latent" in sizes and "latent_rate" not in arguments:
        unknown.append("latent_rate")
    if unknown:
        troubles.append(f"nothing tells its {', '.join(unknown)}")
    mask_id = raw.stated.mask_id
    if mask_id is not None and mask_id >= sizes["vocab_size"] > 0:
        troubles.append(f"mask id {mask_id} in a vocabulary of {sizes['vocab_size']}")
    if "inner" in arguments:
        inner = arguments.pop("inner")
        if hidden > 0 and inner > 0 and inner % hidden:
            troubles.append(f"a feed-forward width of {inner} is no multiple of {hidden}")
        arguments["mlp_ratio"] = inner // hidden
    sees_time = raw.stated.sees_time()
    if NETWORKS[raw.kind].has_time_conditioning and sees_time is not None:
        arguments["time_conditioning"] = sees_time
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
