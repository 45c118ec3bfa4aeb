"""Judges by path or name, read from Hugging Face folders."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from idlm_ds.build.locate import locate
from idlm_ds.errors import UserError
from idlm_ds.metrics.judge import Judge

logger = logging.getLogger(__name__)

JUDGES = {"gpt2-large": "hf:openai-community/gpt2-large"}
"""Short names of judges; GPT-2 Large is the judge of published figures."""


def load_judge(spec: str, device: torch.device | str, key: str = "eval.judge") -> Judge:
    """Load a judge by path or name.

    Raises:
        UserError: It is missing or unusable; names ``key``.
    """
    folder = locate(JUDGES.get(spec, spec), key)
    if folder.suffix == ".gguf":
        raise UserError(
            f"{key}: {folder} must be expanded first: python tools/convert_judge.py FOLDER "
            f"--gguf {folder}"
        )
    try:
        return open_judge(folder, device=device)
    except (OSError, ValueError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError(f"{key}: cannot load {folder}: {first_line}") from error


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
        ValueError: A weight is missing, the configuration states no context length, or
            ``prefix_bos`` is set and the tokenizer has no BOS.
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
    tokenizer = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    context = getattr(model.config, "max_position_embeddings", None)
    if context is None:
        raise ValueError(f"judge: {folder}/config.json states no max_position_embeddings")
    # The hash of the weights is part of the name that stands beside every figure.
    name = f"{folder.resolve().name}@{_short_sha256(weight_files)}"
    if prefix_bos is None:
        prefix_bos = _adds_bos(folder)
    logger.info("judge: %s, context %d, prefix_bos %s", name, context, prefix_bos)
    return Judge(model.to(device), tokenizer, name=name, context=context, prefix_bos=prefix_bos)


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
