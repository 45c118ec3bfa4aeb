"""MAUVE: divergence of real and generated texts in the feature space of a judge."""

import importlib
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from idlm_ds.errors import UserError
from idlm_ds.metrics.features import Features

SEEDS = (1, 2, 3, 4, 5)
SCALING_FACTOR = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class MauveScore:
    """A score with all settings that determine it."""

    mean: float
    """1 if both sets are spread over the clusters alike, near 0 if they share none."""
    std: float
    """Sample standard deviation over seeds of the clustering; the texts' is not in it."""
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    """Seeds of k-means."""
    num_texts: int
    """Number of texts in each of the two sets."""
    num_buckets: int
    scaling_factor: float
    features: str
    max_tokens: int
    judge: str
    package: str

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        return asdict(self)


def mauve_score(
    real: Features,
    samples: Features,
    *,
    seeds: Sequence[int] = SEEDS,
    scaling_factor: float = SCALING_FACTOR,
    num_buckets: int | None = None,
) -> MauveScore:
    """Compare two sets of equal size by mauve-text (arXiv:2102.01454v3), once per seed.

    Args:
        real: Features of real text.
        samples: Features of generated text, from the same judge.
        seeds: Seeds of k-means, two or more.
        scaling_factor: The constant in ``exp(-c KL)``.
        num_buckets: Number of clusters; by default a tenth of the size of a set, at least 2.

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
    if len(seeds) < 2:
        raise UserError(f"mauve: {len(seeds)} seeds; allowed: 2 or more, for the spread")
    # Cluster and compare once per seed of k-means; the spread is reported with the mean.
    buckets = num_buckets or max(2, round(count / 10))
    values = tuple(
        float(
            compute(
                p_features=real.vectors.numpy(),
                q_features=samples.vectors.numpy(),
                num_buckets=buckets,
                mauve_scaling_factor=scaling_factor,
                seed=seed,
            ).mauve
        )
        for seed in seeds
    )
    return MauveScore(
        mean=statistics.fmean(values),
        std=statistics.stdev(values),
        values=values,
        seeds=tuple(seeds),
        num_texts=count,
        num_buckets=buckets,
        scaling_factor=scaling_factor,
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
