"""Measure the memory of a blockwise report of a network with LLaDA's vocabulary, in this process.

python -m tests.evaluation.large_vocabulary FOLDER float32
"""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from idlm_ds.build.judges import load_judge
from idlm_ds.data.tokenizer import Tokenizer
from idlm_ds.evaluation.controls import RunEvaluation
from idlm_ds.evaluation.kept import KeptSets
from idlm_ds.evaluation.report import report
from idlm_ds.models import causal
from idlm_ds.models.init import InitialWeights
from idlm_ds.models.llada import LLaDA, LLaDAConfig, initial_value
from idlm_ds.processes.by_name import make_process
from idlm_ds.recipes.load import load_recipe
from idlm_ds.recipes.schema import DistillRecipe
from tests.distributed.test_memory import peak_bytes
from tests.evaluation.test_genppl import ALONE

V, MASK, LENGTH, SAMPLES = 126_464, 126_336, 512, 8
SIZES = LLaDAConfig(vocab_size=V, hidden=1152, blocks=2, heads=9, ffn=3072)
OVERRIDES = [
    f"data.length={LENGTH}",
    f"eval.num_samples={SAMPLES}",
    f"eval.batch={SAMPLES}",
    "eval.sampler=blockwise",
    "eval.block=128",
    "eval.steps=[4]",
    "eval.teacher_steps=[]",
    "eval.matched_steps=[]",
]


def save_words(folder: Path) -> None:
    """Write a tokenizer of as many words as LLaDA has tokens."""
    words = {"<eos>": 0, **{f"w{i}": i for i in range(1, V)}}
    backend = Backend(models.WordLevel(words, unk_token="<eos>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", unk_token="<eos>"
    ).save_pretrained(folder)


def save_judge(folder: Path) -> None:
    """Write a small judge whose scores are as wide as the network's."""
    config = causal.GPT2Config(
        vocab_size=V, n_positions=LENGTH, n_embd=32, n_layer=1, n_head=2, eos_token_id=0
    )
    causal.GPT2LMHeadModel(config).save_pretrained(folder)
    save_words(folder)


@torch.no_grad()
def make_network(dtype: torch.dtype) -> LLaDA:
    """Make a network at rest, one tensor after the other."""
    with torch.device("meta"):
        network = LLaDA(SIZES).to(dtype)
    network.to_empty(device="cpu")
    source = InitialWeights(initial_value, seed=1)
    for name, parameter in network.named_parameters():
        shape = tuple(parameter.shape)
        parameter.copy_(source.read(name, shape, 0, parameter.numel()).view(shape))
    return network.requires_grad_(False).eval()


def main(folder: Path, dtype: torch.dtype) -> dict[str, float]:
    """Write a report, and return bytes of weights and of the most that was in memory."""
    save_judge(folder / "judge")
    recipe = load_recipe(DistillRecipe, "quickstart", OVERRIDES)
    recipe = replace(recipe, process=replace(recipe.process, mask_id=MASK))
    network = make_network(dtype)
    role = SimpleNamespace(module=network, ema=SimpleNamespace(in_place=nullcontext))
    evaluation = RunEvaluation(
        recipe=recipe,
        process=make_process({"name": "mdlm", "schedule": "loglinear", "eps": 1e-3}, V, MASK),
        tokenizer=Tokenizer(folder / "judge"),
        judge=load_judge(str(folder / "judge"), "cpu"),
        judge_print="",
        weights={"student": "s", "teacher": "t"},
        kept=KeptSets(folder / "evaluation", {}, ALONE),
        world=ALONE,
    )
    heldout = torch.randint(1, V, (SAMPLES, LENGTH), generator=torch.Generator().manual_seed(0))
    # Forget what building the network has taken.
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    report(evaluation, folder, role, role, heldout.numpy())
    parameters = [*network.parameters(), *evaluation.judge.model.parameters()]
    weights = sum(p.numel() * p.element_size() for p in parameters)
    count = sum(p.numel() for p in network.parameters())
    return {"parameters": count, "weights": weights, "before": before, "peak": peak_bytes()}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), getattr(torch, sys.argv[2]))))
