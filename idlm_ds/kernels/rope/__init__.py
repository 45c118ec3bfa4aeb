"""Rotary position embedding of queries and keys."""

from idlm_ds.kernels.dispatch import dispatched
from idlm_ds.kernels.rope import reference

rope = dispatched(reference.rope)
