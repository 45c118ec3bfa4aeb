"""The samples file other evaluation code reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from idlm_ds.evaluation.store import write_text


def write_samples(
    path: Path,
    texts: Sequence[str],
    *,
    gen_ppl: float | None,
    entropy: float,
    provenance: Mapping[str, object],
) -> None:
    """Write whole texts, perplexity under a judge, entropy in nats, and provenance, as JSON.

    ``gen_ppl`` is None where no token was scored.

    Raises:
        UserError: The file cannot be written.
        ValueError: A figure is not finite, which JSON cannot hold.
    """
    content = {
        "generative_ppl": gen_ppl,
        "entropy": entropy,
        "generated_seqs": list(texts),
        "provenance": dict(provenance),
    }
    write_text(path, json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False) + "\n")
