"""Run lm-eval's command line with the model idlm_ds; it takes exactly lm-eval's arguments.

python tools/lm_eval.py --model idlm_ds --model_args pretrained=runs/quickstart/student,steps=8 \
    --tasks tests/plugins/tasks/sotu_choice.yaml
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from idlm_ds.cli import launch
from idlm_ds.errors import UserError

NAME = "idlm_ds"


def main(argv: Sequence[str]) -> None:
    """Run the program.

    Raises:
        UserError: lm-eval is not installed, or the model's arguments cannot be used.
    """
    # Python puts a script's folder first on its path, where `import lm_eval` would find this file.
    folder = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != folder]
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError("lm-eval: the package is missing; pip install 'idlm_ds[eval]'")
    register()
    sys.argv[1:] = argv
    import_module("lm_eval.__main__").cli_evaluate()


def register() -> None:
    """Add the model to lm-eval's registry, unless lm-eval has read this package's entry point."""
    # lm-eval lists its own models only while the registry is empty, so they come first.
    import_module("lm_eval.models")
    registry = import_module("lm_eval.api.registry")
    if NAME not in registry.MODEL_REGISTRY:
        from idlm_ds.plugins.lm_eval_model import DiffusionLM

        registry.register_model(NAME)(DiffusionLM)


if __name__ == "__main__":
    launch(main)
