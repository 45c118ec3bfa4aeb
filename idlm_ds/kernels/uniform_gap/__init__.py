"""Gap of the uniform families: teacher loss minus fake loss."""

from idlm_ds.kernels.dispatch import dispatched
from idlm_ds.kernels.uniform_gap import reference

uniform_gap = dispatched(reference.uniform_gap)
