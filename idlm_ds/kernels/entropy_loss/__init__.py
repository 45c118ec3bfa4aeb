"""Score entropy of SEDD at masked positions, of soft and hard targets."""

from idlm_ds.kernels.dispatch import dispatched
from idlm_ds.kernels.entropy_loss import reference

soft_score_entropy = dispatched(reference.soft_score_entropy)
hard_score_entropy = dispatched(reference.hard_score_entropy)
