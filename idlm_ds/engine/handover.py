"""A frozen network that takes over the weights of the one trained against it."""

from typing import Any

import torch

from idlm_ds.engine.role import RoleEngine


class Handover:
    """Keeps what the teacher of the current round computes with, as shards of the student.

    The copy is what checkpoints carry: a resumed run goes on against the same teacher, although
    the student has moved since the round began.
    """

    def __init__(self, student: RoleEngine, teacher: RoleEngine) -> None:
        if student.shards is None:
            raise TypeError(f"{student.name} does not learn, so it has nothing to hand over")
        self._student = student
        self._teacher = teacher
        self._shards = student.shards
        self._kept = [w.detach().clone() for w in self._shards.weights]
        student.kept["handover"] = self._kept

    def take(self) -> None:
        """Collective: make the student's weights of this moment the teacher's."""
        for kept, weight in zip(self._kept, self._shards.weights, strict=True):
            kept.copy_(weight.detach())
        copy_weights(self._student, self._teacher)

    def renew(self) -> None:
        """Collective: give the teacher the weights kept, after a checkpoint was loaded."""
        self._shards.exchange(self._kept)
        copy_weights(self._student, self._teacher)
        self._shards.exchange(self._kept)


@torch.no_grad()
def copy_weights(source: RoleEngine, target: RoleEngine) -> None:
    """Collective: copy the weights one network computes with into another of the same shape.

    Both are cut alike or not at all, so every rank copies what it holds.
    """
    target.release()
    theirs: dict[str, Any] = dict(source.module.named_parameters())
    ours: dict[str, Any] = dict(target.module.named_parameters())
    for name, parameter in ours.items():
        if hasattr(parameter, "ds_tensor"):
            parameter.ds_tensor.data.copy_(theirs[name].ds_tensor.data)
        else:
            parameter.data.copy_(theirs[name].data)
