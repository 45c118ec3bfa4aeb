"""A frozen network that takes over the weights of the one trained against it."""

import torch

from idlm_ds.engine.role import FrozenRole, Role, TrainedRole
from idlm_ds.engine.zero import are_cut_alike, gathered, local_part


class Handover:
    """Keeps what the teacher of the current round computes with, as shards of the student.

    The copy is what checkpoints carry: a resumed run goes on against the same teacher, although
    the student has moved since the round began.
    """

    def __init__(self, student: TrainedRole, teacher: FrozenRole) -> None:
        self._student = student
        self._teacher = teacher
        self._shards = student.shards
        self._kept = [w.detach().clone() for w in self._shards.weights]
        student.kept["handover"] = self._kept

    def take(self) -> None:
        """Make the student's present weights the teacher's.

        Collective: every rank must call.
        """
        for kept, weight in zip(self._kept, self._shards.weights, strict=True):
            kept.copy_(weight.detach())
        copy_weights(self._student, self._teacher)

    def renew(self) -> None:
        """Give the teacher the weights kept, after a checkpoint was loaded.

        Collective: every rank must call.
        """
        self._shards.exchange(self._kept)
        copy_weights(self._student, self._teacher)
        self._shards.exchange(self._kept)


@torch.no_grad()
def copy_weights(source: Role, target: Role) -> None:
    """Copy the weights one network computes with into another of the same shape.

    Where both are cut alike, or not at all, every rank copies what it holds; otherwise one tensor
    after the other is gathered.

    Collective: every rank must call.
    """
    target.release_all()
    theirs = dict(source.module.named_parameters())
    for name, parameter in target.module.named_parameters():
        here = local_part(parameter)
        if are_cut_alike(parameter, theirs[name]):
            here.data.copy_(local_part(theirs[name]).data)
            continue
        with gathered(theirs[name]):
            here.fill(theirs[name].detach().view(-1)[here.start : here.stop])
