"""Loss of MDLM at masked positions, of soft and hard targets."""

from idlm_ds.kernels.dispatch import dispatched
from idlm_ds.kernels.masked_loss import reference

soft_cross_entropy = dispatched(reference.soft_cross_entropy)
hard_cross_entropy = dispatched(reference.hard_cross_entropy)
