"""The only place that seeds a global generator: dropout draws from it."""

import torch

from idlm_ds.noise import derive_seed


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Make the dropout masks of a phase a function of (seed, step, rank)."""
    torch.manual_seed(derive_seed(seed, "dropout", step, rank))
