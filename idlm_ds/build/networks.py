"""Networks that recipes describe, and those that model folders hold."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn

from idlm_ds.build.locate import locate
from idlm_ds.build.processes import vocabulary_of
from idlm_ds.checkpoints.formats.public import read_public
from idlm_ds.checkpoints.model_folder import NetworkCard
from idlm_ds.checkpoints.weight_files import folder_weights
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.weights import WeightSource, check_weights
from idlm_ds.errors import UserError
from idlm_ds.models.init import InitialValue, InitialWeights
from idlm_ds.recipes.schema import PretrainRecipe
from idlm_ds.recipes.sections import ModelSection
from idlm_ds.registry.networks import NETWORKS, trained_with
from idlm_ds.registry.table import load


@dataclass(frozen=True, slots=True)
class Network:
    """How to build, initialise and save a network."""

    make: Callable[[], nn.Module]
    initial_value: InitialValue
    card: NetworkCard | Mapping[str, Any]
    """This package's card, or a Hugging Face configuration."""

    prefix: str = ""
    """Prefix of parameter names here that names on disk lack."""


def new_network(recipe: PretrainRecipe, tokenizer: Tokenizer) -> Network:
    """Build the network a pretraining recipe describes.

    Raises:
        UserError: Objective and kind do not fit each other.
    """
    kind, fitting = recipe.model.kind, trained_with(recipe.objective.name)
    if kind not in fitting:
        raise UserError(
            f"model.kind: {kind!r} cannot be trained with objective.name "
            f"{recipe.objective.name!r}; that takes {' or '.join(map(repr, fitting))}"
        )
    if not NETWORKS[kind].is_diffusion:
        return _causal(recipe.model, recipe.data.length, tokenizer)
    names = {f.name for f in fields(load(NETWORKS[kind].config))} - {"checkpoint_activations"}
    vocab_size, _ = vocabulary_of(recipe.process, len(tokenizer))
    sizes = {k: v for k, v in asdict(recipe.model).items() if k in names}
    card = NetworkCard(
        network={"kind": kind, **sizes, "vocab_size": vocab_size},
        process=asdict(recipe.process),
        length=recipe.data.length,
    )
    return known_network(card, checkpoint_activations=recipe.train.checkpoint_activations)


def count_parameters(network: Network) -> int:
    """Count the parameters without allocating them."""
    with torch.device("meta"):
        return sum(p.numel() for p in network.make().parameters())


def starting_weights(recipe: PretrainRecipe, network: Network) -> WeightSource:
    """Random weights, or those of the model the recipe names.

    Raises:
        UserError: That model is missing or is another network.
    """
    if not recipe.model.init:
        return InitialWeights(network.initial_value, seed=recipe.seed)
    path = locate(recipe.model.init, "model.init")
    try:
        source: WeightSource
        if NETWORKS[recipe.model.kind].is_diffusion:
            model = read_public(path)
            if size := model.about.latent:
                raise UserError(f"{path}: a student with a latent of {size} is no start here")
            source = model.weights
        else:
            source = folder_weights(path, prefix=network.prefix)
        with torch.device("meta"):
            module = network.make()
        check_weights(module, source)
    except UserError as error:
        raise type(error)(f"model.init: {error}") from error
    return source


def known_network(card: NetworkCard, *, checkpoint_activations: bool = False) -> Network:
    """Build the network a card describes.

    Raises:
        UserError: The kind or a size is not known here.
    """
    sizes = dict(card.network)
    kind = sizes.pop("kind", None)
    known = {name: row for name, row in NETWORKS.items() if row.is_diffusion}
    if kind not in known:
        raise UserError(f"network.kind: {kind!r} is unknown; known: {', '.join(known)}")
    row = known[kind]
    try:
        config = load(row.config)(**sizes, checkpoint_activations=checkpoint_activations)
    except TypeError as error:
        raise UserError(f"network: {error}") from error
    module = load(row.entry_point)
    return Network(lambda: module(config), load(row.initial_value), card)


def _causal(section: ModelSection, length: int, tokenizer: Tokenizer) -> Network:
    row = NETWORKS[section.kind]
    module = load(row.entry_point)
    config = load(row.config)(
        vocab_size=len(tokenizer),
        n_positions=length,
        n_embd=section.hidden,
        n_layer=section.blocks,
        n_head=section.heads,
        n_inner=section.mlp_ratio * section.hidden,
        resid_pdrop=section.dropout,
        embd_pdrop=section.dropout,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.eos_id,
        eos_token_id=tokenizer.eos_id,
    )
    card = config.to_dict() | {"architectures": ["GPT2LMHeadModel"]}
    return Network(lambda: module(config), load(row.initial_value), card, prefix="lm.")
