"""Loss of the uniform families, of soft targets."""

from idlm_ds.kernels.dispatch import dispatched
from idlm_ds.kernels.uniform_loss import reference

soft_uniform_loss = dispatched(reference.soft_uniform_loss)
