"""The gap of SEDD in Triton."""

from idlm_ds.kernels.linear_gap import linear_gap
from idlm_ds.tensor_types import Logits, PerPosition


def entropy_gap(
    student: Logits,
    teacher: Logits,
    fake: Logits,
    weight: PerPosition,
    mask_id: int,
    *,
    with_value: bool = True,
) -> tuple[PerPosition, Logits]:
    """See ``reference.py``; the derivative is in the memory of ``student``."""
    return linear_gap(
        student, teacher, fake, weight, mask_id, is_normalised=False, with_value=with_value
    )
