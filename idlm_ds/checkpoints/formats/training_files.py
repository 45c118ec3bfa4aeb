"""What training programs write: weights, a running mean of them, and much else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from idlm_ds.checkpoints.formats.description import Found, RunningMean
from idlm_ds.checkpoints.formats.stated import Reader, Stated, state_training
from idlm_ds.checkpoints.pickle_reader.allowed import StoredTensor
from idlm_ds.checkpoints.pickle_reader.torch_file import TorchFile, TorchWeights, tensors_in

LAYOUTS: Mapping[str, frozenset[str]] = {
    "lightning": frozenset({"state_dict"}),
    "sedd_training": frozenset({"model", "ema", "step"}),
}
"""Keys that give a layout away."""


def find_layout(file: TorchFile) -> str | None:
    """Say which layout a file has."""
    keys = file.content.keys() if isinstance(file.content, dict) else frozenset()
    return next((name for name, needed in LAYOUTS.items() if needed <= keys), None)


def read_training_file(path: Path, layout: str, file: TorchFile) -> Found:
    """Find weights, running mean and configuration in an open file.

    Raises:
        UserError: They are not of the form that the layout's program writes.
    """
    key = "state_dict" if layout == "lightning" else "model"
    tensors = tensors_in(file, file.content[key], key)
    ignored = _ignored(list(tensors)) if layout == "lightning" else []
    kept = {name: tensor for name, tensor in tensors.items() if name not in ignored}
    ema, shadow = _running_mean(file.content.get("ema"))
    return Found(
        path=path,
        layout=layout,
        stated=_state(path, layout, file),
        files=(path,),
        tensors=dict.fromkeys(kept, TorchWeights(file, kept)),
        ignored=tuple(ignored),
        ema=ema,
        shadow=None if ema is None else (file, shadow),
    )


def _ignored(names: list[str]) -> list[str]:
    # The network is ``backbone``; what stands beside it is a teacher, metrics or a schedule.
    own = {name for name in names if name.replace("_orig_mod.", "").startswith("backbone.")}
    return [n for n in names if n.startswith("teacher.") or (own and n not in own)]


def _running_mean(ema: Any) -> tuple[RunningMean | None, list[StoredTensor]]:
    shadow = ema.get("shadow_params") if isinstance(ema, dict) else None
    if not isinstance(shadow, list) or not shadow:
        return None, []
    decay, updates = ema.get("decay"), ema.get("num_updates")
    mean = RunningMean(
        decay=decay if isinstance(decay, float) else None,
        updates=updates if isinstance(updates, int) else None,
    )
    return mean, [tensor for tensor in shadow if isinstance(tensor, StoredTensor)]


def _state(path: Path, layout: str, file: TorchFile) -> Stated:
    if layout == "sedd_training":
        return Stated(family="sedd")
    return state_training(Reader(str(path), file.content.get("hyper_parameters")), "config.")
