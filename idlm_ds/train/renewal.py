"""Rounds of self-distillation: when the teacher takes over the student's weights."""

from typing import TYPE_CHECKING, final

from idlm_ds.objectives.self_distillation import Rounds

if TYPE_CHECKING:  # imports DeepSpeed
    from idlm_ds.engine.handover import Handover


@final
class Renewal:
    """Brings the teacher to the round of a step, also in a run that was just resumed."""

    def __init__(self, rounds: Rounds, handover: "Handover") -> None:
        self._rounds = rounds
        self._handover = handover
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
            self._handover.take()
        else:
            self._handover.renew()
        self._round = index
