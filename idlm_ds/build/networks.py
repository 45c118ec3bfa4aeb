"""Networks by description: those that recipes ask for, and those that model folders hold."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn
from transformers import GPT2Config

from idlm_ds.build.locate import locate
from idlm_ds.build.processes import vocabulary_of
from idlm_ds.checkpoints.formats.public import read_public
from idlm_ds.checkpoints.model_folder import WEIGHTS, NetworkCard
from idlm_ds.checkpoints.tensors import FileWeights
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.engine.weights import WeightSource, check_weights
from idlm_ds.errors import UserError
from idlm_ds.models import causal, dit, llada
from idlm_ds.models.init import InitialValue, InitialWeights
from idlm_ds.recipes.schema import ModelSection, PretrainRecipe


@dataclass(frozen=True, slots=True)
class Network:
    """How to build a network, how to start it and how to write it down."""

    make: Callable[[], nn.Module]
    initial_value: InitialValue
    card: NetworkCard | Mapping[str, Any]
    """This package's card, or a Hugging Face configuration."""

    prefix: str = ""
    """What parameter names carry here that they do not carry on disk."""


def new_network(recipe: PretrainRecipe, tokenizer: Tokenizer) -> Network:
    """The network a pretraining recipe describes.

    Raises:
        UserError: Objective and kind do not fit each other.
    """
    fitting = {"nelbo": "dit", "ar": "gpt2"}[recipe.objective.name]
    if recipe.model.kind != fitting:
        raise UserError(
            f"model.kind: {recipe.model.kind!r} cannot be trained with objective.name "
            f"{recipe.objective.name!r}; that takes {fitting!r}"
        )
    if recipe.model.kind == "gpt2":
        return _gpt2(recipe.model, recipe.data.length, tokenizer)
    section = asdict(recipe.model)
    names = {f.name for f in fields(dit.DiTConfig)} - {"checkpoint_activations"}
    vocab_size, _ = vocabulary_of(recipe.process, len(tokenizer))
    sizes = {k: v for k, v in section.items() if k in names} | {"vocab_size": vocab_size}
    card = NetworkCard(
        network={"kind": "dit", **sizes},
        process=asdict(recipe.process),
        length=recipe.data.length,
    )
    return known_network(card, checkpoint_activations=recipe.train.checkpoint_activations)


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
        if recipe.model.kind == "gpt2":
            source = FileWeights(path / WEIGHTS, prefix=network.prefix)
        else:
            source = read_public(path).weights
        with torch.device("meta"):
            module = network.make()
        check_weights(module, source)
    except UserError as error:
        raise type(error)(f"model.init: {error}") from error
    return source


def known_network(card: NetworkCard, *, checkpoint_activations: bool = False) -> Network:
    """The network a card describes.

    Args:
        card: What it is.
        checkpoint_activations: Whether training computes activations twice to keep fewer.

    Raises:
        UserError: The kind or a size is not known here.
    """
    sizes = dict(card.network)
    kind = sizes.pop("kind", None)
    sizes["checkpoint_activations"] = checkpoint_activations
    try:
        match kind:
            case "dit":
                dit_config = dit.DiTConfig(**sizes)
                return Network(lambda: dit.DiT(dit_config), dit.initial_value, card)
            case "llada":
                llada_config = llada.LLaDAConfig(**sizes)
                return Network(lambda: llada.LLaDA(llada_config), llada.initial_value, card)
    except TypeError as error:
        raise UserError(f"network: {error}") from error
    raise UserError(f"network.kind: {kind!r} is unknown; known: dit, llada")


def _gpt2(section: ModelSection, length: int, tokenizer: Tokenizer) -> Network:
    config = GPT2Config(
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
    return Network(lambda: causal.CausalLM(config), causal.initial_value, card, prefix="lm.")
