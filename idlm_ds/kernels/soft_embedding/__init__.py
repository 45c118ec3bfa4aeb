"""Mean of the embeddings of a few tokens under the softmax of their scores."""

from idlm_ds.kernels.dispatch import dispatched
from idlm_ds.kernels.soft_embedding import reference

soft_embedding = dispatched(reference.soft_embedding)
