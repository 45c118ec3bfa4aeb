"""The page that goes with an exported model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from huggingface_hub import ModelCardData

import idlm_ds
from idlm_ds.evaluation.table import to_markdown
from idlm_ds.export.fields import Code
from idlm_ds.export.student import Student
from idlm_ds.samplers.config import SamplerConfig

FIGURES = {
    "model": "model",
    "steps": "steps",
    "latent": "latent",
    "nfe": "NFE",
    "gen_ppl": "GenPPL",
    "entropy": "entropy (nats)",
    "distinct_2": "distinct-2",
    "temperature": "temperature",
    "sampler": "sampler",
    "precision": "precision",
    "num_samples": "samples",
    "seeds": "seed",
    "judge": "judge",
}
"""Columns of the table."""

EXPORTED_WITH = (idlm_ds, torch, transformers)

# A test searches sources for these words spelt out, since this package itself never says them.
TRUST = f"trust_remote_code={True}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """What the page tells."""

    title: str
    code: Code
    student: Student
    dtype: str
    chain: SamplerConfig
    license: str | None
    base_model: str | None

    def text(self) -> str:
        """Write the whole page, in Markdown."""
        parts = [
            f"---\n{self._front_matter()}\n---",
            f"# {self.title}",
            self._what_it_is(),
            *self._usage(),
            "## Where it comes from",
            "\n".join(f"- {label}: {value}" for label, value in self._origins()),
        ]
        if self.student.report.get("rows"):
            parts += ["## Figures", *self._figures()]
        return "\n\n".join(parts) + "\n"

    def _front_matter(self) -> str:
        return ModelCardData(
            license=self.license,
            library_name="transformers",
            pipeline_tag="text-generation",
            base_model=self.base_model,
            tags=["diffusion", *self._distilled("distillation"), str(self.student.about.family)],
        ).to_yaml()

    def _distilled(self, words: str) -> list[str]:
        """Return words for students, nothing for others."""
        return [words] if "student_updates" in self.student.origin else []

    def _what_it_is(self) -> str:
        about = self.student.about
        mask = "no mask" if about.mask_id is None else f"mask {about.mask_id}"
        made = "".join(self._distilled(", distilled to generate in few steps"))
        latent = f", {about.latent} random numbers beside each" if about.latent else ""
        return (
            f"A diffusion language model of the `{about.family}` family{made}: "
            f"{about.parameters:,} parameters, stored as {self.dtype}; sequences of "
            f"{about.length} tokens{latent}; a vocabulary of {about.vocab_size} with {mask}.\n\n"
            "The folder holds the code that runs it. It needs Python 3.11, torch and transformers."
        )

    def _usage(self) -> Iterator[str]:
        auto, chain = self.code.auto[-1], self.chain
        yield "## Use"
        yield _code(
            f"from transformers import AutoTokenizer, {auto}\n\n"
            f'folder = "path/to/{self.title}"\n'
            f"model = {auto}.from_pretrained(folder, {TRUST})\n"
            f"tokenizer = AutoTokenizer.from_pretrained(folder, {TRUST})\n\n"
            f"samples = model.generate(num_samples=4, steps={chain.steps}, seed=0)\n"
            "print(tokenizer.batch_decode(samples))"
        )
        yield (
            f"By default {chain.steps} steps of the {chain.label} sampler in {chain.precision} at "
            f"temperature {chain.temperature:g}: `generation_config.json`. All settings are in the "
            "docstring of `generate`. A sample depends on the seed and its number only."
        )
        noise = "the total noise `-log alpha` of each sequence"
        is_masked, given = self.student.about.mask_id is not None, "input_ids"
        timesteps = f", {noise}, may be left out." if is_masked else f" is {noise}."
        if size := self.student.about.latent:
            timesteps += f" `latents` are standard normal numbers (B, L, {size})."
            given = "input_ids, latents=latents"
        yield (
            f"`model({given}).logits` are the network's scores of every word at every position. "
            f"`timesteps`{timesteps} A step of fine-tuning:"
        )
        yield _code("model(**model.noised(input_ids, seed=step)).loss.backward()")

    def _origins(self) -> Iterator[tuple[str, str]]:
        for key, value in self.student.origin.items():
            yield key.replace("_", " "), _flat(value)
        versions = {package.__name__: package.__version__ for package in EXPORTED_WITH}
        yield "exported with", _flat(versions)

    def _figures(self) -> Iterator[str]:
        yield to_markdown(self.student.report["rows"], FIGURES)
        yield (
            "GenPPL is the perplexity of samples under the judge and compares under one judge "
            "only; ± is one standard error; NFE counts network calls a sequence."
        )
        yield _flat(self.student.report.get("settings", {}))


def _flat(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    return ", ".join(f"{key} {_flat(item)}" for key, item in value.items() if item is not None)


def _code(text: str) -> str:
    return f"```python\n{text}\n```"
