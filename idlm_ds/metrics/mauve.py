"""MAUVE: divergence of real and generated texts in the feature space of a judge."""

import importlib
import statistics
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from idlm_ds.errors import UserError
from idlm_ds.metrics.features import Features

SEEDS = (1, 2, 3, 4, 5)
"""Seeds of k-means; two or more, for the spread."""

SCALING_FACTOR = 5.0
"""The constant in ``exp(-c KL)``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MauveScore:
    """A score with all settings that determine it."""

    mean: float
    """1 if both sets are spread over the clusters alike, near 0 if they share none."""
    std: float
    """Sample standard deviation over seeds of the clustering; the texts' is not in it."""
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    num_texts: int
    """Number of texts in each of the two sets."""
    num_buckets: int
    scaling_factor: float
    features: str
    max_tokens: int
    judge: str
    package: str


def mauve_score(real: Features, samples: Features) -> MauveScore:
    """Compare two sets of equal size by mauve-text (arXiv:2102.01454v3), once per seed.

    There are a tenth as many clusters as texts in a set, at least 2.

    Raises:
        UserError: mauve-text is not installed, or the sets are not comparable.
    """
    compute = _load().compute_mauve
    count = len(real.vectors)
    if count != len(samples.vectors) or count < 2:
        raise UserError(
            f"mauve: {count} real texts and {len(samples.vectors)} samples; "
            "allowed: equal numbers, 2 or more"
        )
    if real.description != samples.description:
        raise UserError(f"mauve: {real.description}, against {samples.description}")
    # Cluster and compare once per seed of k-means; the spread is reported with the mean.
    num_buckets = max(2, round(count / 10))
    compare = partial(
        compute,
        p_features=real.vectors.numpy(),
        q_features=samples.vectors.numpy(),
        num_buckets=num_buckets,
        mauve_scaling_factor=SCALING_FACTOR,
    )
    values = tuple(float(compare(seed=seed).mauve) for seed in SEEDS)
    return MauveScore(
        mean=statistics.fmean(values),
        std=statistics.stdev(values),
        values=values,
        seeds=SEEDS,
        num_texts=count,
        num_buckets=num_buckets,
        scaling_factor=SCALING_FACTOR,
        features=real.description,
        max_tokens=real.max_tokens,
        judge=real.judge,
        package=f"mauve-text {version('mauve-text')}, faiss {version('faiss-cpu')}",
    )


def _load() -> Any:
    try:
        return importlib.import_module("mauve")
    except ImportError as error:
        raise UserError(
            f"mauve: {error}; pip install 'idlm_ds[eval]' brings mauve-text and faiss-cpu"
        ) from error
