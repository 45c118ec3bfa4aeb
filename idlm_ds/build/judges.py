"""Judges by path or name."""

import torch

from idlm_ds.build.locate import locate
from idlm_ds.errors import UserError
from idlm_ds.metrics.judge import Judge

JUDGES = {"gpt2-large": "hf:openai-community/gpt2-large"}
"""The judge of published figures, by the name people use."""


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
        return Judge.load(folder, device=device)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{key}: cannot load {folder}: {first}") from error
