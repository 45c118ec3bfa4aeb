"""Lightning checkpoints of MDLM, Duo and SEDD."""

from collections.abc import Iterable, Mapping
from typing import Any, final

from idlm_ds.checkpoints.formats.content import Content
from idlm_ds.checkpoints.formats.reader import Reader, Stated
from idlm_ds.checkpoints.formats.training_config import state_training, training_config
from idlm_ds.checkpoints.formats.training_file import TrainingFile
from idlm_ds.checkpoints.pickle_reader.torch_file import TorchFile

VERSION = "2.2.1"
"""Version of Lightning whose format is written; later ones read it."""


@final
class Lightning(TrainingFile):
    """The network is ``backbone``; a teacher, metrics or a schedule may be beside it."""

    keys = frozenset({"state_dict"})
    weights = "state_dict"
    prefix = "backbone."

    def ignored(self, names: Iterable[str]) -> list[str]:
        """See base class."""
        names = list(names)
        own = {name for name in names if name.replace("_orig_mod.", "").startswith(self.prefix)}
        return [n for n in names if n.startswith("teacher.") or (own and n not in own)]

    def state(self, file: TorchFile) -> Stated:
        """See base class."""
        hyper_parameters = file.content.get("hyper_parameters")
        return state_training(Reader(file.label, hyper_parameters), "config.")

    def fields(self, content: Content, shared: Mapping[str, Any]) -> dict[str, Any]:
        """See base class."""
        done = {"current": {"completed": 0}}
        return {
            "epoch": 0,
            "global_step": 0,
            "pytorch-lightning_version": VERSION,
            **shared,
            "hyper_parameters": {"config": training_config(content.about)},
            "loops": {"fit_loop": {"epoch_progress": done, "epoch_loop.batch_progress": done}},
            "optimizer_states": [],
            "lr_schedulers": [],
        }
