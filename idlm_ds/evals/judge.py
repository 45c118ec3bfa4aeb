"""A causal language model from a local folder that scores text written by others."""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float64, Int, Int64
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

logger = logging.getLogger(__name__)


def scored_targets(
    ids: Int[Tensor, "B L"], text: Bool[Tensor, "B L"], *, eos_id: int | None
) -> Bool[Tensor, "B L"]:
    """Mark the positions whose token is scored, given all tokens before it.

    Position 0 has nothing before it and is never scored. The first EOS of the text counts,
    and so does the text after it; only later EOS tokens are left out. ``text`` is False at
    padding and at a BOS prefix, which neither count nor use up the first EOS.
    """
    keep = text.clone()
    if eos_id is not None:
        eos = (ids == eos_id) & text
        keep &= ~eos | (eos.cumsum(dim=1) == 1)
    keep[:, 0] = False
    return keep


@final
class Judge:
    """Scores texts under one causal language model and its own tokenizer."""

    def __init__(
        self, model: nn.Module, tokenizer: Any, *, name: str, context: int, prefix_bos: bool = False
    ) -> None:
        if context < 2:
            raise ValueError(f"judge: context={context}; allowed: 2 or more")
        if prefix_bos and tokenizer.bos_token_id is None:
            raise ValueError(
                f"judge: prefix_bos=True, but the tokenizer of {name} has no BOS token"
            )
        self.name = name
        self.context = context
        self.prefix_bos = prefix_bos
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @classmethod
    def load(
        cls, folder: Path, *, device: torch.device | str = "cpu", prefix_bos: bool = False
    ) -> "Judge":
        """Read a Hugging Face folder: safetensors weights, no remote code, no network.

        Precision: weights in float32, whatever the file holds.

        Raises:
            FileNotFoundError: the folder or one of its needed files is missing.
            ValueError: the model states no context length, or lacks a BOS that was asked for.
        """
        weights = _check_folder(folder)
        disable_progress_bar()
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            dtype=torch.float32,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        context = getattr(model.config, "max_position_embeddings", None)
        if context is None:
            raise ValueError(f"judge: {folder}/config.json states no max_position_embeddings")
        name = f"{folder.resolve().name}@{_short_sha256(weights)}"
        logger.info("judge: %s, context %d, prefix_bos %s", name, context, prefix_bos)
        return cls(model.to(device), tokenizer, name=name, context=context, prefix_bos=prefix_bos)

    @torch.inference_mode()
    def score(
        self, texts: Sequence[str], batch: int = 8
    ) -> tuple[Float64[Tensor, " N"], Int64[Tensor, " N"]]:
        """Sum the nats of each text and count its scored tokens, by `scored_targets`.

        Texts are tokenised anew and cut to the judge's context. Special tokens written in a
        text are read as such; the tokenizer adds none. Padding neither counts nor is seen, so
        the answer does not depend on ``batch``. A text of no scored token gives (0, 0).

        Units: nats. Precision: log-softmax in float32, sums in float64.
        Sync: waits for the device.

        Raises:
            ValueError: ``batch`` is not positive.
        """
        if batch < 1:
            raise ValueError(f"score: batch={batch}; allowed: 1 or more")
        nats = torch.zeros(len(texts), dtype=torch.float64)
        tokens = torch.zeros(len(texts), dtype=torch.int64)
        for start in range(0, len(texts), batch):
            part = slice(start, start + batch)
            nats[part], tokens[part] = self._score_batch(
                [self._encode(text) for text in texts[part]]
            )
        return nats, tokens

    def _encode(self, text: str) -> list[int]:
        room = self.context - int(self.prefix_bos)
        encoded = self.tokenizer(
            text, add_special_tokens=False, truncation=True, max_length=room, verbose=False
        )
        ids: list[int] = encoded["input_ids"]
        return ids

    def _score_batch(
        self, rows: list[list[int]]
    ) -> tuple[Float64[Tensor, " B"], Int64[Tensor, " B"]]:
        skip = int(self.prefix_bos)
        width = skip + max(1, *(len(row) for row in rows))
        ids = torch.zeros(len(rows), width, dtype=torch.int64)
        text = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, skip : skip + len(row)] = torch.tensor(row, dtype=torch.int64)
            text[i, skip : skip + len(row)] = True
        seen = text.clone()
        # An empty text would leave its row nothing to attend to, and a softmax of nothing.
        seen[:, 0] = True
        if self.prefix_bos:
            ids[:, 0] = self.tokenizer.bos_token_id
        keep = scored_targets(ids, text, eos_id=self.tokenizer.eos_token_id)
        return self._nats(ids, seen, keep), keep.sum(dim=1)

    def _nats(
        self, ids: Int64[Tensor, "B L"], seen: Bool[Tensor, "B L"], keep: Bool[Tensor, "B L"]
    ) -> Float64[Tensor, " B"]:
        device = next(self.model.parameters()).device
        ids = ids.to(device)
        logits = self.model(input_ids=ids, attention_mask=seen.long().to(device)).logits
        sums = []
        # Row by row: a float32 copy of all logits of a large vocabulary is gigabytes.
        for row, target, counts in zip(logits, ids, keep.to(device), strict=True):
            nats = F.cross_entropy(row[:-1].float(), target[1:], reduction="none").double()
            sums.append(nats[counts[1:]].sum())
        return torch.stack(sums).cpu()


def _check_folder(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"judge: {folder} is not a folder")
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"judge: {folder} has no {name}")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise FileNotFoundError(f"judge: {folder} has no *.safetensors; other formats are not read")
    return weights


def _short_sha256(files: Sequence[Path]) -> str:
    """Hash the files one after the other, as ``cat *.safetensors | sha256sum`` would."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]
