"""Gap of MDLM: teacher loss minus fake loss at masked positions."""

from idlm_ds.kernels.dispatch import dispatched
from idlm_ds.kernels.masked_gap import reference

masked_gap = dispatched(reference.masked_gap)
