"""Makes ``--model idlm_ds`` known to releases of lm-eval that look for no plug-ins.

Later ones read the entry point ``lm_eval.models`` of this package, and this module has nothing to
do. lm-eval 0.4.13 reads none; but it imports torch before it looks a model up, and torch calls the
entry points ``torch.backends``, of which ``announce`` is one. It is called wherever torch is
imported, so it does nothing unless lm-eval is running, and never fails.
"""

import sys
from importlib import import_module

NAME = "idlm_ds"
TARGET = "idlm_ds.plugins.lm_eval_model:DiffusionLM"


def announce() -> None:
    """Enter the model in lm-eval's registry, by name; nothing of it is imported yet."""
    registry = getattr(sys.modules.get("lm_eval.api.registry"), "model_registry", None)
    if registry is None or NAME in registry:
        return
    # lm-eval enters its own models only into an empty registry.
    import_module("lm_eval.models")
    registry.register(NAME, target=TARGET)
