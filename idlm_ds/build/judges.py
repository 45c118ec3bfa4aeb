"""Judges by path or name, read from Hugging Face folders."""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from idlm_ds.build.locate import locate
from idlm_ds.checkpoints.tensors import fingerprint
from idlm_ds.errors import UserError
from idlm_ds.metrics.judge import Judge

logger = logging.getLogger(__name__)

JUDGES = {"gpt2-large": "hf:openai-community/gpt2-large"}
"""Short names of judges; GPT-2 Large is the judge of published figures."""


DESCRIPTIONS = (
    *("config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("tokenizer.model", "spiece.model"),
)
"""Files of a judge, beside its weights, that its scores depend on."""


@dataclass(frozen=True, slots=True)
class JudgeFolder:
    """A judge that was found and looks usable; no weight has been read."""

    path: Path
    key: str
    """Where the user named it: a recipe's key or an option."""

    @property
    def fingerprint(self) -> str:
        """Short hash of what is no weight; the hash of the weights is in the judge's name."""
        return fingerprint(*(self.path / n for n in DESCRIPTIONS if (self.path / n).is_file()))

    def load(self, device: torch.device | str) -> Judge:
        """Read its weights.

        Raises:
            UserError: It is unusable after all, or a weight is not finite.
        """
        with _one_line(self.key, self.path):
            return open_judge(self.path, device=device)


def load_judge(spec: str, device: torch.device | str, key: str = "eval.judge") -> Judge:
    """Load a judge by path or name; see ``find_judge``."""
    return find_judge(spec, key).load(device)


def find_judge(spec: str, key: str = "eval.judge") -> JudgeFolder:
    """Find a judge by path or name, and check all of it but the values of its weights.

    Of its weight files only the headers are read, so this takes no memory and little time.

    Raises:
        UserError: It is missing or unusable; names ``key``.
    """
    folder = locate(JUDGES.get(spec, spec), key)
    if folder.suffix == ".gguf":
        raise UserError(
            f"{key}: {folder} must be expanded first: python tools/convert_judge.py FOLDER "
            f"--gguf {folder}"
        )
    with _one_line(key, folder):
        _check_judge(folder)
    return JudgeFolder(folder, key)


@contextmanager
def _one_line(key: str, folder: Path) -> Iterator[None]:
    """Turn whatever a damaged folder, or too little memory, makes libraries raise into a line."""
    try:
        yield
    except Exception as error:  # parsers and model classes raise all kinds
        lines = str(error).replace(f"{folder}/", "").replace(str(folder), "").split("\n")
        reason = " ".join((lines[0] or type(error).__name__).split())
        raise UserError(f"{key}: cannot load {folder}: {reason[:120]}") from error


def _check_judge(folder: Path) -> None:
    """Check the kind of a judge, its tokenizer, and the names and shapes of its weights.

    Raises:
        Exception: Anything, where a file is damaged.
    """
    stored = _stored_shapes(_check_folder(folder))
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    _check_weights(model, stored)
    tokenizer = _tokenizer(folder, config)
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"its tokenizer has {len(tokenizer)} tokens, its vocabulary {config.vocab_size}"
        )
    if _adds_bos(folder) and tokenizer.bos_token_id is None:
        raise ValueError("add_bos_token is true, but its tokenizer has no BOS token")


def _stored_shapes(weight_files: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """Read the headers of weight files, which a cut or damaged file does not match."""
    shapes = {}
    for path in weight_files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (no mapping, and not iterable)
                shapes[name] = tuple(file.get_slice(name).get_shape())
    return shapes


def _check_weights(model: nn.Module, stored: dict[str, tuple[int, ...]]) -> None:
    """Compare what is stored with what a model needs.

    A file with names that the model does not have is left to the library that loads it, which may
    rename them.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    tied = tuple(getattr(model, "_tied_weights_keys", None) or ())
    needed = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    known = {name if name in needed else prefix + name: shape for name, shape in stored.items()}
    if set(known) - set(needed):
        return
    missing = sorted(set(needed) - set(known))
    if missing := [n for n in missing if not any(re.search(pattern, n) for pattern in tied)]:
        raise ValueError(f"it lacks {len(missing)} weights, such as {missing[0]}")
    for name, shape in known.items():
        if shape != needed[name]:
            raise ValueError(f"{name} has shape {list(shape)}, not {list(needed[name])}")


def open_judge(
    folder: Path, *, device: torch.device | str = "cpu", prefix_bos: bool | None = None
) -> Judge:
    """Read a Hugging Face folder: safetensors weights, no remote code, no network.

    With ``prefix_bos`` a BOS is put before each text, which makes its first token a target. None
    follows the key ``add_bos_token`` of ``tokenizer_config.json``; where that is absent, as in
    GPT-2's folders, there is no prefix.

    Precision: weights in float32, whatever the file stores.

    Raises:
        FileNotFoundError: The folder or a required file is missing.
        ValueError: A weight is missing or not finite, the configuration states no context length,
            or ``prefix_bos`` is set and the tokenizer has no BOS.
    """
    weight_files = _check_folder(folder)
    disable_progress_bar()
    model, loading_info = AutoModelForCausalLM.from_pretrained(
        folder,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    if missing := sorted(loading_info["missing_keys"]):
        # transformers initialises missing weights at random and goes on.
        raise ValueError(f"judge: {folder} lacks {len(missing)} weights, such as {missing[0]}")
    for weight, value in model.named_parameters():
        if not bool(value.isfinite().all()):
            raise ValueError(f"judge: weight {weight} is not finite")
    tokenizer = _tokenizer(folder, model.config)
    # The hash of the weights is part of the name that stands beside every figure.
    name = f"{folder.resolve().name}@{_short_sha256(weight_files)}"
    if prefix_bos is None:
        prefix_bos = _adds_bos(folder)
    # Texts are read once and whole: keys and values that are kept would only take memory.
    model.config.use_cache = False
    context: int = model.config.max_position_embeddings
    logger.info("judge: %s, context %d, prefix_bos %s", name, context, prefix_bos)
    return Judge(model.to(device), tokenizer, name=name, context=context, prefix_bos=prefix_bos)


def _tokenizer(folder: Path, config: Any) -> Any:
    if getattr(config, "max_position_embeddings", None) is None:
        raise ValueError(f"judge: {folder}/config.json states no max_position_embeddings")
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def _adds_bos(folder: Path) -> bool:
    path = folder / "tokenizer_config.json"
    return path.is_file() and json.loads(path.read_text()).get("add_bos_token") is True


def _check_folder(folder: Path) -> list[Path]:
    """Return the weight files of a folder that has all files of a judge."""
    if not folder.is_dir():
        raise FileNotFoundError(f"judge: {folder} is not a folder")
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"judge: {folder} has no {name}")
    weight_files = sorted(folder.glob("*.safetensors"))
    if not weight_files:
        raise FileNotFoundError(f"judge: {folder} has no *.safetensors; other formats are not read")
    return weight_files


def _short_sha256(files: Sequence[Path]) -> str:
    """Hash the files one after the other, as ``cat *.safetensors | sha256sum`` would."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]
