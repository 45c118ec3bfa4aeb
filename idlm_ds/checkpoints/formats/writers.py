"""Models written down in the layouts they are read from; ``conversion.py`` checks the result."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor

from idlm_ds.checkpoints.formats.configs import FOLDERS, training_config
from idlm_ds.checkpoints.formats.description import Description
from idlm_ds.checkpoints.formats.folders import INDEX
from idlm_ds.checkpoints.formats.layouts import PLANS, ROTARY
from idlm_ds.checkpoints.model_folder import CONFIG, NetworkCard, write_network
from idlm_ds.checkpoints.tensors import NamedTensors
from idlm_ds.errors import UserError
from idlm_ds.models.rotary import BASE

WITH_MEAN = ("lightning", "sedd_training")
"""Layouts that hold the weights and a running mean of them; they are files of ``torch.save``."""

LIGHTNING = "2.2.1"
"""Version of Lightning whose format is written; later ones read it."""

FIRST_MEAN = {"decay": 0.9999, "num_updates": 0}
"""Where there is no running mean, the programs want one all the same, and start it like this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What is written."""

    about: Description
    """With all that the layout needs; see ``check_fits``."""

    weights: NamedTensors
    """Under the names of the network."""

    mean: NamedTensors | None = None
    """A running mean of them, for layouts that hold both."""

    dtype: torch.dtype | None = None
    """None keeps each tensor as it is stored."""

    origin: Mapping[str, Any] | None = None
    """Where it came from, for people to read."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name, in the order of the network's parameters."""
        return {name: self.weights.shape(name) or () for name in _in_order(self.about)}

    def tensor(self, name: str) -> Tensor:
        """A whole tensor, in memory of its own."""
        return whole(self.weights, name, self.dtype)


def whole(source: NamedTensors, name: str, dtype: torch.dtype | None = None) -> Tensor:
    """Read a tensor into memory of its own, cast on the way where ``dtype`` is given."""
    shape = source.shape(name) or ()
    values = torch.empty(shape, dtype=dtype or source.dtype(name))
    values.view(-1).copy_(source.read(name, shape, 0, values.numel()))
    return values


def _in_order(about: Description) -> list[str]:
    sizes = dict(about.sizes)
    sizes["inner"] = sizes.get("mlp_ratio", 0) * sizes["hidden"]
    return list(PLANS[about.kind].shapes(sizes))


def write_model(path: Path, layout: str, content: Content, *, max_shard_size: str) -> None:
    """Write a model; ``path`` must not be there yet.

    Holds one shard of a Hugging Face folder in memory, and all weights of any other layout.

    Args:
        path: A folder or a file, after the layout.
        layout: A key of ``LAYOUTS`` that the content fits.
        content: What to write.
        max_shard_size: Like ``5GB``; of the files of a Hugging Face folder.

    Raises:
        UserError: The shard size is none, or the file cannot be written.
    """
    if layout == "idlm_ds":
        about = content.about
        mask = {} if about.mask_id is None else {"mask_id": about.mask_id}
        card = NetworkCard(
            network={"kind": about.kind, **about.sizes},
            process={**about.process, **mask},
            length=about.length or 0,
        )
        weights = {name: content.tensor(name) for name in content.shapes()}
        write_network(path, card, weights, origin=content.origin)
    elif layout in WITH_MEAN:
        _save(path, {"lightning": _lightning, "sedd_training": _sedd_training}[layout](content))
    else:
        config, prefix = FOLDERS[layout]
        _write_shards(path, content, prefix, max_shard_size)
        fields = config(content.about) | _torch_dtype(content)
        (path / CONFIG).write_text(json.dumps(fields, indent=2) + "\n")


def _write_shards(folder: Path, content: Content, prefix: str, max_shard_size: str) -> None:
    empty = {prefix + name: tensor for name, tensor in _empty(content)}
    try:
        split = split_torch_state_dict_into_shards(empty, max_shard_size=max_shard_size)
    except ValueError as error:
        raise UserError(f"--max-shard-size: {max_shard_size!r} is no size like 5GB") from error
    folder.mkdir()
    for file, stored in split.filename_to_tensors.items():
        shard = {n: _tensor(content, n.removeprefix(prefix)) for n in stored}
        save_file(shard, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)  # safetensors makes files that only the owner reads
        del shard
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _empty(content: Content) -> Iterator[tuple[str, Tensor]]:
    for name, shape in content.shapes().items():
        dtype = content.dtype or content.weights.dtype(name)
        yield name, torch.empty(shape, dtype=dtype, device="meta")
    if content.about.kind == "dit":
        yield ROTARY, _frequencies(content.about).to("meta")


def _tensor(content: Content, name: str) -> Tensor:
    return _frequencies(content.about) if name == ROTARY else content.tensor(name)


def _frequencies(about: Description) -> Tensor:
    # Here they are computed; the published networks load them, and are strict about it.
    width = about.sizes["hidden"] // about.sizes["heads"]
    return BASE ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)


def _save(path: Path, content: Mapping[str, Any]) -> None:
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        raise UserError(f"{path}: cannot be written: {error.__context__ or error}") from error


def _lightning(content: Content) -> dict[str, Any]:
    weights = {name: content.tensor(name) for name in content.shapes()}
    stored = {**weights, ROTARY: _frequencies(content.about)}
    done = {"current": {"completed": 0}}
    return {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": LIGHTNING,
        "state_dict": {f"backbone.{name}": tensor for name, tensor in stored.items()},
        "ema": _running_mean(content, weights),
        "hyper_parameters": {"config": training_config(content.about)},
        "loops": {"fit_loop": {"epoch_progress": done, "epoch_loop.batch_progress": done}},
        "optimizer_states": [],
        "lr_schedulers": [],
    }


def _sedd_training(content: Content) -> dict[str, Any]:
    weights = {name: content.tensor(name) for name in content.shapes()}
    return {
        "model": {**weights, ROTARY: _frequencies(content.about)},
        "ema": _running_mean(content, weights),
        "step": 0,
        "optimizer": {"state": {}, "param_groups": []},
    }


def _running_mean(content: Content, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    mean, ema = content.mean, content.about.ema
    if mean is None or ema is None:
        # The same memory, so that the file is no larger.
        return {**FIRST_MEAN, "shadow_params": list(weights.values())}
    shadow = [whole(mean, name, content.dtype) for name in weights]
    return {"decay": ema.decay, "num_updates": ema.updates, "shadow_params": shadow}


def _torch_dtype(content: Content) -> dict[str, str]:
    dtype = content.about.dtype if content.dtype is None else str(content.dtype)
    return {} if "," in dtype else {"torch_dtype": dtype.removeprefix("torch.")}
