"""Model class ``idlm_ds`` of lm-eval: an adapter of ``evaluation/lm_harness.py``.

python tools/lm_eval.py --model idlm_ds --model_args pretrained=STUDENT,steps=8 --tasks TASK
"""

from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import LM

from idlm_ds.evaluation.lm_harness import Harness


class DiffusionLM(LM):
    """A saved model of any layout, as a model of lm-eval."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self._harness = Harness.from_arguments(arguments)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """See base class."""
        return self._harness.generate([r.args for r in requests], quiet=disable_tqdm)

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """See base class; a Monte-Carlo bound."""
        return self._harness.score([r.args for r in requests], quiet=disable_tqdm)

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """See base class; a Monte-Carlo bound, piece by piece."""
        return self._harness.score_whole([r.args[0] for r in requests], quiet=disable_tqdm)

    def get_model_info(self) -> dict[str, Any]:
        """Return what lm-eval writes beside its results: settings, network calls, speed."""
        return self._harness.info()
