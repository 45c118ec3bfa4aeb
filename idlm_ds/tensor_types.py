"""Tensor aliases for public signatures.

Axis letters, one meaning in the whole package:
    B sequences, L positions of a sequence, V vocabulary entries (the mask included),
    P selected positions, counted through a flattened batch: ``b * L + l``.

Suffixes on names mean time (``x_0``, ``x_t``, ``alpha_s``), never shape.

No alias has the axes B, L and V together. With 126k words and 4096 positions such a tensor takes
2 GB a sequence, so scores exist only at positions somebody asked for.
"""

from typing import TypeAlias

from jaxtyping import Float, Int
from torch import Tensor

TokenIds: TypeAlias = Int[Tensor, "B L"]
"""Hard tokens in ``[0, V)``."""

Positions: TypeAlias = Int[Tensor, " P"]
"""Selected positions of a flattened (B, L) batch, increasing."""

Logits: TypeAlias = Float[Tensor, "P V"]
"""Raw scores of a network at selected positions."""

LogProbs: TypeAlias = Float[Tensor, "P V"]

Probs: TypeAlias = Float[Tensor, "P V"]
"""Rows sum to one."""

PerPosition: TypeAlias = Float[Tensor, " P"]

Time: TypeAlias = Float[Tensor, " B"]
"""One diffusion time per sequence, in ``[0, 1]``; 0 is data, 1 is noise."""

Scalar: TypeAlias = Float[Tensor, ""]
