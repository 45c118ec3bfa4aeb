"""Scores of one set of samples under a judge."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float64, Int64
from torch import Tensor

from idlm_ds.errors import UserError
from idlm_ds.evaluation.draw import Ranks, gather_rows
from idlm_ds.metrics.judge import Judge, Masking


@dataclass(frozen=True, slots=True)
class Scores:
    """What a judge says of the texts of a set."""

    nats: Float64[Tensor, " N"]
    tokens: Int64[Tensor, " N"]
    """Scored tokens of each text."""


def score_set(
    judge: Judge,
    texts: Sequence[str],
    *,
    masking: Masking = "published",
    batch: int = 32,
    ranks: Ranks,
) -> Scores:
    """Score a set, each rank every ``ranks.size``-th text of it.

    Collective: every rank must call; all get all scores.

    Raises:
        UserError: A score is not finite; on every rank.
    """
    nats, tokens = judge.score(texts[ranks.rank :: ranks.size], batch, masking=masking)
    scores = Scores(*gather_rows(len(texts), ranks, nats, tokens))
    if not bool(scores.nats.isfinite().all()):
        raise UserError(f"judge {judge.name}: the score of a text is not finite; use another judge")
    return scores
