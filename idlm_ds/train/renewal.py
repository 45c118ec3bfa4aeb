"""Rounds of self-distillation: when the teacher takes over the student's weights."""

from typing import Protocol, final

from idlm_ds.objectives.self_distillation import Rounds


class Successor(Protocol):
    """A teacher that can take over its student's weights."""

    def take(self) -> None:
        """Take over the present weights."""
        ...

    def renew(self) -> None:
        """Take over the weights of the beginning of the round, after a checkpoint was loaded."""
        ...


@final
class Renewal:
    """Brings the teacher to the round of a step, also in a run that was just resumed."""

    def __init__(self, rounds: Rounds, successor: Successor) -> None:
        self._rounds = rounds
        self._successor = successor
        self._round = 0
        """The round whose teacher this process holds."""

    def __call__(self, step: int) -> None:
        """Renew the teacher where a round begins with ``step``.

        Collective: every rank must call.
        """
        index = self._rounds.index(step)
        if index == self._round:
            return
        if self._rounds.is_first_of_round(step):
            self._successor.take()
        else:
            self._successor.renew()
        self._round = index
