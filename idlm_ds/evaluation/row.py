"""One line of a table of results: settings of sets of samples, and their figures.

A row is flat: settings, then figures. The standard error of ``x`` is ``x_se``, its spread
``x_std``; None stands for what is unknown or does not apply.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

import torch
from torch import Tensor

from idlm_ds.evaluation.cell import Cell
from idlm_ds.evaluation.draw import SampleSet
from idlm_ds.evaluation.score import Scores
from idlm_ds.metrics.accumulate import Estimate, MeanAccumulator, PerplexityAccumulator
from idlm_ds.metrics.entropy import distinct_ngrams, unigram_entropy
from idlm_ds.metrics.judge import Judge, Masking
from idlm_ds.metrics.repetition import repeated_tokens
from idlm_ds.metrics.self_bleu import self_bleu
from idlm_ds.metrics.texts import is_digit_string, word_entropy

Row: TypeAlias = Mapping[str, Any]

NGRAM = 4
"""Length of the blocks that count as repetition, and longest order of self-BLEU."""

TAIL = 0.05
"""Share of the samples whose entropy is at most ``entropy_p5``: a few that collapsed show here long
before they move the mean."""

HELD_OUT = "held-out"
REPEATED = "one real text repeated"
MATCHED = "teacher (matched)"
MATCHED_DISTINCT = "teacher (matched in distinct-2)"
"""What ``model`` is in the rows of a run's controls."""


def with_error(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    """Columns of a figure and its standard error."""
    if estimate is None:
        return {name: None, f"{name}_se": None}
    return {name: estimate.value, f"{name}_se": estimate.se if estimate.count > 1 else None}


def setting_columns(cells: Sequence[Cell]) -> dict[str, Any]:
    """Collect the settings of cells that differ in their seed only."""
    columns = asdict(cells[0])
    del columns["seed"]
    return {**columns, "seeds": [cell.seed for cell in cells]}


def sample_columns(cells: Sequence[Cell], sets: Sequence[SampleSet]) -> dict[str, Any]:
    """Collect settings, costs and variety of cells that differ in their seed only."""
    first = cells[0]
    seconds = sum(each.seconds for each in sets if each.seconds is not None) or None
    num_tokens = len(cells) * first.num_samples * first.length
    has_cost = sets[0].nfe is not None
    return {
        **setting_columns(cells),
        "num_samples": len(cells) * first.num_samples,
        "nfe": statistics.fmean(each.nfe or 0.0 for each in sets) if has_cost else None,
        **_variety([each.tokens for each in sets]),
        **_text_columns([text for each in sets for text in each.texts]),
        "seconds": seconds,
        "tokens_per_s": num_tokens / seconds if seconds else None,
        "machine": dict(sets[0].machine),
    }


def _variety(sets: Sequence[Tensor]) -> dict[str, Any]:
    entropy, repetition = MeanAccumulator(), MeanAccumulator()
    entropies, distinct, bleu = [], [], []
    for tokens in sets:
        width = min(NGRAM, tokens.shape[1])
        entropies.append(unigram_entropy(tokens))
        entropy.update(entropies[-1])
        repetition.update(repeated_tokens(tokens, width))
        distinct.append(distinct_ngrams(tokens, min(2, width)))
        if len(tokens) > 1:
            bleu.append(self_bleu(tokens, order=width).mean().item())
    return {
        **with_error("entropy", entropy.compute()),
        "entropy_p5": torch.cat(entropies).quantile(TAIL).item(),
        "distinct_2": statistics.fmean(distinct),
        **with_error("repetition", repetition.compute()),
        "self_bleu": statistics.fmean(bleu) if bleu else None,
    }


def _text_columns(texts: Sequence[str]) -> dict[str, Any]:
    words = MeanAccumulator()
    words.update(word_entropy(texts))
    return {
        **with_error("word_entropy", words.compute()),
        "digit_strings": statistics.fmean(is_digit_string(text) for text in texts),
    }


def judge_columns(judge: Judge, masking: Masking, scores: Sequence[Scores]) -> dict[str, Any]:
    """Perplexity under a judge, pooled over the tokens of all sets."""
    pooled, of_sets = PerplexityAccumulator(), []
    for each in scores:
        of_set = PerplexityAccumulator()
        of_set.update(each.nats, each.tokens)
        pooled.merge(of_set)
        # Texts of nothing but EOS have no scored token.
        if each.tokens.any():
            of_sets.append(of_set.compute().value)
    return {
        "judge": judge.name,
        "judge_context": judge.context,
        "judge_bos": judge.prefix_bos,
        "masking": masking,
        **with_error("gen_ppl", pooled.compute() if of_sets else None),
        "gen_ppl_std_over_seeds": statistics.stdev(of_sets) if len(of_sets) > 1 else None,
    }


def distance_columns(distances: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds; a spread is over all clusterings of all seeds."""
    columns: dict[str, Any] = {}
    if all("mauve" in each for each in distances):
        values = [value for each in distances for value in each["mauve"]["values"]]
        mauve = distances[0]["mauve"]
        settings = {k: v for k, v in mauve.items() if k not in ("mean", "std", "values")}
        columns |= {"mauve": statistics.fmean(values), "mauve_std": statistics.stdev(values)}
        columns["mauve_settings"] = settings
    if all("gm" in each for each in distances):
        errors = [each["gm"]["se"] for each in distances]
        is_known = all(error is not None for error in errors)
        columns["gm"] = statistics.fmean(each["gm"]["value"] for each in distances)
        columns["gm_se"] = sum(e**2 for e in errors) ** 0.5 / len(errors) if is_known else None
    return columns
