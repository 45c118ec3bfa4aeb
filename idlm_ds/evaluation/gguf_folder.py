"""Conversion of a Llama model in a GGUF file to a Hugging Face folder that serves as a judge.

Transformers reads GGUF too, but needs the package accelerate for it, splits numerals such as ``²``
differently than the model was trained on, and takes the marks of chat turns as BOS and EOS.
"""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from idlm_ds.errors import UserError
from idlm_ds.files import write_atomic

SEPARATOR = "<|endoftext|>"
"""Separator of documents in pretraining; the BOS and EOS of a chat model delimit its turns."""

DIGITS_APART = {"smollm": True, "gpt-2": False}
"""Supported pre-tokenizers, and whether each digit is a token of its own."""

CONTROL = 3
"""GGUF's type of special tokens."""

NAMES = {
    r"token_embd": "model.embed_tokens",
    r"output_norm": "model.norm",
    r"output": "lm_head",
    r"blk\.(\d+)\.attn_norm": r"model.layers.\1.input_layernorm",
    r"blk\.(\d+)\.ffn_norm": r"model.layers.\1.post_attention_layernorm",
    r"blk\.(\d+)\.attn_([qkv])": r"model.layers.\1.self_attn.\2_proj",
    r"blk\.(\d+)\.attn_output": r"model.layers.\1.self_attn.o_proj",
    r"blk\.(\d+)\.ffn_(gate|up|down)": r"model.layers.\1.mlp.\2_proj",
}

Field = Callable[[str], Any]
"""Reads the value of a key of the file."""


def convert_gguf(file: Path, folder: Path) -> int:
    """Write weights in float16, configuration, tokenizer and their origin.

    Quantised weights are expanded, which does not restore the precision they have lost.

    Returns:
        Number of parameters.

    Raises:
        UserError: The package gguf is missing, the file is no Llama model with a byte-level BPE,
            or the folder exists.
    """
    reader, field = _open(file)
    if folder.exists():
        raise UserError(f"{folder}: exists already")
    heads = {"q": field("llama.attention.head_count"), "k": field("llama.attention.head_count_kv")}
    weights = {_rename(t.name): _weight(t, heads) for t in reader.tensors}
    tokenizer = _tokenizer(field)
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(weights["model.embed_tokens.weight"]),
        hidden_size=field("llama.embedding_length"),
        intermediate_size=field("llama.feed_forward_length"),
        num_hidden_layers=field("llama.block_count"),
        num_attention_heads=heads["q"],
        num_key_value_heads=heads["k"],
        max_position_embeddings=field("llama.context_length"),
        rms_norm_eps=field("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": field("llama.rope.freq_base")},
        tie_word_embeddings="lm_head.weight" not in weights,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    write_atomic(folder / "model.safetensors", save(weights, metadata={"format": "pt"}))
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # Saving drops this key, by which a judge puts the separator in front of a text.
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    _write_json(folder / "tokenizer_config.json", settings | {"add_bos_token": True})
    origin = {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    origin |= {key: field(f"general.{key}") for key in ("name", "license")}
    _write_json(folder / "origin.json", origin)
    return sum(weight.size for weight in weights.values())


def _open(file: Path) -> tuple[Any, Field]:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise UserError("gguf: the package is missing; pip install 'idlm_ds[eval]'") from error
    try:
        reader = GGUFReader(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not a GGUF file: {error}") from error

    def field(key: str) -> Any:
        if key not in reader.fields:
            raise UserError(f"{file}: no {key}; allowed: Llama models with a byte-level BPE")
        return reader.fields[key].contents()

    return reader, field


def _rename(name: str) -> str:
    for pattern, replacement in NAMES.items():
        if match := re.fullmatch(rf"{pattern}\.weight", name):
            return match.expand(replacement) + ".weight"
    raise UserError(f"tensor {name}: not a tensor of a Llama model")


def _weight(tensor: Any, heads: dict[str, int]) -> npt.NDArray[np.float16]:
    """Expand one tensor, with the rows of queries and keys in Hugging Face's order.

    GGUF keeps the two coordinates that rotary embeddings turn together side by side, a Llama
    folder half a head apart.
    """
    from gguf.quants import dequantize

    weight = dequantize(tensor.data, tensor.tensor_type)
    if kind := re.search(r"\.attn_([qk])\.weight$", tensor.name):
        pairs = weight.reshape(heads[kind[1]], -1, 2, weight.shape[-1])
        weight = pairs.swapaxes(1, 2).reshape(weight.shape)
    half = np.ascontiguousarray(weight, dtype=np.float16)
    if not np.isfinite(half).all():
        raise UserError(f"tensor {tensor.name}: beyond the range of float16")
    return half


def _tokenizer(field: Field) -> PreTrainedTokenizerFast:
    kind, pre = field("tokenizer.ggml.model"), field("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in DIGITS_APART:
        allowed = ", ".join(f"gpt2/{name}" for name in DIGITS_APART)
        raise UserError(f"tokenizer {kind}/{pre}; allowed: {allowed}")
    tokens, types = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    if SEPARATOR not in tokens:
        raise UserError(f"tokenizer: the vocabulary lacks {SEPARATOR}")
    merges = [tuple(pair.split(" ")) for pair in field("tokenizer.ggml.merges")]
    vocab = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    digits = [pre_tokenizers.Digits(individual_digits=True)] if DIGITS_APART[pre] else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, type_ in zip(tokens, types, strict=True) if type_ == CONTROL]
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in special]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SEPARATOR, eos_token=SEPARATOR
    )


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())
