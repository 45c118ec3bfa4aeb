"""Random students of every family in this package's own folders, and a training run's files."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from idlm_ds.build.locate import ASSETS
from idlm_ds.build.networks import known_network
from idlm_ds.checkpoints import transaction
from idlm_ds.checkpoints.model_folder import NetworkCard, write_network
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.recipes.sections import ProcessSection

WORDS = 2048
"""Of the embedded tokenizer."""

LENGTH = 12
DIT = {
    "kind": "dit", "vocab_size": WORDS + 1, "hidden": 16, "blocks": 2, "heads": 2, "cond": 8,
    "mlp_ratio": 2, "dropout": 0.0,
}  # fmt: skip
LLADA = {
    "kind": "llada", "vocab_size": WORDS + 16, "hidden": 16, "blocks": 2, "heads": 2, "ffn": 24,
    "rope_base": 5e5, "norm_eps": 1e-5,
}  # fmt: skip
"""Its table is padded, and its mask is one of the tokenizer's words, as in the release."""

LLADA_MASK = WORDS - 1

LATENT = {"latent": 6, "latent_rate": 4.0}

CARDS = {
    "mdlm": (DIT | {"time_conditioning": False}, {"name": "mdlm", "eps": 0.01}),
    "sedd": (DIT | {"time_conditioning": True}, {"name": "sedd", "schedule": "geometric"}),
    "udlm": (DIT | {"time_conditioning": True}, {"name": "udlm", "schedule": "cosine"}),
    "duo": (DIT | {"time_conditioning": True}, {"name": "duo", "tau": 0.01}),
    "llada": (LLADA, {"name": "mdlm", "mask_id": LLADA_MASK}),
    "mdlm-latent": (DIT | LATENT | {"time_conditioning": False}, {"name": "mdlm", "eps": 0.01}),
    "udlm-latent": (DIT | LATENT | {"time_conditioning": True}, {"name": "udlm"}),
    "llada-latent": (LLADA | LATENT, {"name": "mdlm", "mask_id": LLADA_MASK}),
}
"""Network and family of each student."""


def is_llada(name: str) -> bool:
    return name.startswith("llada")


def latent_of(name: str) -> int:
    return CARDS[name][0].get("latent", 0)


def card_of(name: str) -> NetworkCard:
    network, process = CARDS[name]
    return NetworkCard(network=network, process=asdict(ProcessSection(**process)), length=LENGTH)


def random_weights(card: NetworkCard, seed: int = 0) -> dict[str, Tensor]:
    """Gates and output included, so that every part of the network counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {n: tuple(p.shape) for n, p in known_network(card).make().named_parameters()}
    weights = {n: 0.4 * torch.randn(shape, generator=generator) for n, shape in shapes.items()}
    return {n: w + 1.0 if "norm" in n or "ln_f" in n else w for n, w in weights.items()}


def write_student(folder: Path, name: str, *, origin: Mapping[str, Any] | None = None) -> Path:
    card = card_of(name)
    write_network(folder, card, random_weights(card), origin=origin)
    Tokenizer(ASSETS / "tokenizer").save(folder)
    return folder


def network_of(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The network of ``write_student``, as this package runs it."""
    card = card_of(name)
    network = known_network(card).make()
    network.load_state_dict(random_weights(card))
    return network.to(dtype).eval().requires_grad_(False)


def write_checkpoint(
    run: Path, weights: Mapping[str, Tensor], *, step: int = 6, cuts: tuple[float, ...] = (1.0,)
) -> Path:
    """A checkpoint whose ranks own the shares of every parameter up to each of ``cuts``.

    Raw weights are other numbers than the running mean, ``weights``.
    """
    folder = transaction.begin(run / "checkpoints", step)
    entries = {}
    for role in ("fake", "student"):
        (folder / role).mkdir()
        for rank, (low, high) in enumerate(zip((0.0, *cuts), cuts, strict=False)):
            path = folder / role / f"rank-{rank:05d}.safetensors"
            _write_rank(path, weights, low, high)
            entries[f"{role}/{path.name}"] = transaction.describe(path)
    state = {
        "recipe": {"objective.name": "idlm"},
        "inputs": {},
        "step": step,
        "updates": {"fake": step // 2, "student": step // 2},
    }
    (folder / "loop.json").write_text(json.dumps(state))
    entries["loop.json"] = transaction.describe(folder / "loop.json")
    return transaction.commit(folder, entries, step)


def _write_rank(path: Path, weights: Mapping[str, Tensor], low: float, high: float) -> None:
    tensors, places = {}, {}
    for name, tensor in weights.items():
        start, stop = (round(share * tensor.numel()) for share in (low, high))
        part = tensor.flatten()[start:stop].clone()
        if len(part):
            tensors |= {f"ema:{name}": part, f"weight:{name}": part + 1.0}
            places[name] = {"start": start, "shape": tuple(tensor.shape)}
    save_file(tensors, path, metadata={"fragments": json.dumps(places)})


def write_recipe(run: Path, teacher: Path, **more: object) -> None:
    """The recipe of a run that starts from ``teacher``, as runs write it."""
    from idlm_ds.recipes.load import load_recipe, to_yaml
    from idlm_ds.recipes.schema import DistillRecipe

    recipe = load_recipe(
        DistillRecipe,
        "quickstart",
        [
            f"teacher.path={teacher}",
            f"data.length={LENGTH}",
            "process.eps=0.01",
            *(f"{key}={value}" for key, value in more.items()),
        ],
    )
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.yaml").write_text(to_yaml(recipe))
    told = {"commit": "c0ffee", "versions": {"torch": "2.0"}}
    (run / "run.json").write_text(json.dumps(told))
