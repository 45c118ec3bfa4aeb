"""Hugging Face folders of SDTT, around the configuration of its training program."""

from collections.abc import Mapping
from typing import Any, final

from idlm_ds.checkpoints.formats.description import Description
from idlm_ds.checkpoints.formats.folder import FolderFormat
from idlm_ds.checkpoints.formats.reader import Reader, Stated
from idlm_ds.checkpoints.formats.training_config import state_training, training_config


@final
class SDTTFolder(FolderFormat):
    """A training program's configuration, under ``config`` or at the top."""

    prefix = "backbone."

    def fits(self, fields: Mapping[str, Any]) -> bool:
        """See base class; those of SEDD come first in the table."""
        return any(isinstance(part.get("model"), dict) for part in (fields, _inner(fields)))

    def state(self, config: Reader) -> Stated:
        """See base class."""
        root = "config." if isinstance(config.value("config.model"), dict) else ""
        return state_training(config, root, default=self.layout.families[0])

    def config(self, about: Description) -> dict[str, Any]:
        """See base class."""
        return {"config": training_config(about)}


def _inner(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = fields.get("config")
    return inner if isinstance(inner, dict) else {}
