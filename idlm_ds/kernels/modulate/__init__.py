"""What the condition does to a transformer block: modulated layer norm and gated residual."""

from idlm_ds.kernels.dispatch import dispatched
from idlm_ds.kernels.modulate import reference

modulate = dispatched(reference.modulate)
add_gated = dispatched(reference.add_gated)
