"""Rows as an evaluation makes them."""

from idlm_ds.evaluation.row import Row


def row(model: str, steps: int | None, gen_ppl: float | None, entropy: float = 4.5, **other) -> Row:
    is_sampled = steps is not None
    return {
        "model": model,
        "sampler": "ancestral" if is_sampled else None,
        "steps": steps,
        "precision": "float64" if is_sampled else None,
        "temperature": 1.0,
        "nucleus": 1.0,
        "num_samples": 80,
        "length": 16,
        "seeds": [7 if is_sampled else 0],
        "nfe": float(steps) if is_sampled else None,
        "entropy": entropy,
        "entropy_se": 0.01,
        "distinct_2": 0.5,
        "seconds": 1.25 if is_sampled else None,
        "judge": "tiny@0123456789ab",
        "gen_ppl": gen_ppl,
        "gen_ppl_se": 0.25,
        **other,
    }
