"""The samples file other evaluation code reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from idlm_ds.files import write_atomic


def write_samples(
    path: Path,
    texts: Sequence[str],
    *,
    gen_ppl: float | None,
    entropy: float,
    provenance: Mapping[str, object],
) -> None:
    """Write texts, their two figures and their provenance, as JSON.

    Args:
        path: The file, which is replaced.
        texts: Whole, as decoded.
        gen_ppl: Perplexity under a judge; None where no token was scored.
        entropy: Mean unigram entropy, in nats.
        provenance: Settings behind the texts, as JSON values.

    Raises:
        ValueError: a figure is not finite, which JSON cannot hold.
    """
    content = {
        "generative_ppl": gen_ppl,
        "entropy": entropy,
        "generated_seqs": list(texts),
        "provenance": dict(provenance),
    }
    text = json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode())
