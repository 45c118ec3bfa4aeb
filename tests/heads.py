"""Heads of networks that are no networks."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


class ScoresOf:
    """Answers with the scores that a function gives; has no hidden states to fuse with."""

    def __init__(self, scores: Callable[[Tensor], Tensor]) -> None:
        self.scores = scores

    def fused(self, operator: Callable[..., Tensor], positions: Tensor, *inputs: Any) -> Tensor:
        raise NotImplementedError
