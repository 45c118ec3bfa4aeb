"""SEDD: its Hugging Face folders and the files of its training program."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, final

from idlm_ds.checkpoints.formats.content import Content
from idlm_ds.checkpoints.formats.description import Description
from idlm_ds.checkpoints.formats.folder import FolderFormat
from idlm_ds.checkpoints.formats.reader import Reader, Stated
from idlm_ds.checkpoints.formats.training_config import state_training, training_config
from idlm_ds.checkpoints.formats.training_file import TrainingFile
from idlm_ds.checkpoints.pickle_reader.torch_file import TorchFile
from idlm_ds.errors import UserError
from idlm_ds.registry.families import SCHEDULES
from idlm_ds.registry.table import default


@final
class SEDDFolder(FolderFormat):
    """The mask comes on top of ``tokens``."""

    def fits(self, fields: Mapping[str, Any]) -> bool:
        """See base class."""
        return {"tokens", "graph", "model"} <= fields.keys()

    def state(self, config: Reader) -> Stated:
        """See base class; only those trained with a mask."""
        if config.text("graph.type") != "absorb":
            raise UserError(
                f"{config.label}: SEDD with a graph.type other than absorb is not known"
            )
        stated, tokens = state_training(config), config.integer("tokens")
        sizes = {} if tokens is None else {"vocab_size": tokens + 1}
        return replace(stated, family=self.layout.families[0], sizes={**stated.sizes, **sizes})

    def config(self, about: Description) -> dict[str, Any]:
        """See base class."""
        fields = training_config(about)
        schedule = {"type": about.process.get("schedule", default(SCHEDULES))}
        bounds = {k: about.process[k] for k in ("sigma_min", "sigma_max") if k in about.process}
        return {
            "tokens": about.vocab_size - 1,
            "graph": {"type": "absorb"},
            "noise": schedule | bounds,
            "model": fields["model"] | {"scale_by_sigma": True},
            "time_conditioning": fields["time_conditioning"],
        }


@final
class SEDDTraining(TrainingFile):
    """Weights, running mean and optimizer; no configuration."""

    keys = frozenset({"model", "ema", "step"})
    weights = "model"

    def state(self, file: TorchFile) -> Stated:
        """See base class."""
        return Stated(family=self.layout.families[0])

    def fields(self, content: Content, shared: Mapping[str, Any]) -> dict[str, Any]:
        """See base class."""
        return {**shared, "step": 0, "optimizer": {"state": {}, "param_groups": []}}
