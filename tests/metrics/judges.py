"""Judges small enough to be worked out by hand."""

from pathlib import Path
from types import SimpleNamespace

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from idlm_ds.metrics.judge import Judge

WORDS = ["<eos>", "<unk>", "<bos>", "a", "b", "c", "d", "e", "f"]
CONTEXT = 12


def save_judge(folder: Path, *, bos: bool = True) -> Path:
    """Write a GPT-2 of random weights that reads ``WORDS``."""
    split = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    split.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"eos_token": "<eos>", "unk_token": "<unk>"} | ({"bos_token": "<bos>"} if bos else {})
    PreTrainedTokenizerFast(tokenizer_object=split, **special).save_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(WORDS),
        n_positions=CONTEXT,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=2,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            # Wide enough that every position and token has its own probability.
            weight.copy_(0.5 * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(folder)
    return folder


def ids_of(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


class Numbers:
    """A tokenizer of texts that are written as token ids; 0 is the EOS."""

    eos_token_id = 0
    bos_token_id = None

    def __call__(self, text: str, *, max_length: int, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()][:max_length]}


class Bigram(nn.Module):
    """Scores of the next token are a row of a table."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        del attention_mask
        return SimpleNamespace(logits=self.table[input_ids])


def bigram_judge(table: Tensor, context: int = 100) -> Judge:
    return Judge(Bigram(table), Numbers(), name="bigram", context=context)
