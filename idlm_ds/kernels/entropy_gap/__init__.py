"""Gap of SEDD: teacher loss minus fake loss at masked positions."""

from idlm_ds.kernels.dispatch import dispatched
from idlm_ds.kernels.entropy_gap import reference

entropy_gap = dispatched(reference.entropy_gap)
