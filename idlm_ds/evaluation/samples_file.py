"""The samples file other evaluation code reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from idlm_ds.files import write_atomic


def write_samples(
    path: Path,
    texts: Sequence[str],
    *,
    gen_ppl: float,
    entropy: float,
    provenance: Mapping[str, object],
) -> None:
    """Write texts and their two figures, with where they came from, as JSON.

    Units: ``entropy`` in nats.

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
