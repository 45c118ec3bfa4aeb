"""Copy a trained model folder into the embedded assets.

python tools/install_asset.py runs/pretrain_teacher/model teacher
python tools/install_asset.py runs/pretrain_judge/model judge --half
"""

import argparse
import shutil
from pathlib import Path

import torch

from idlm_ds.checkpoints.formats.content import whole
from idlm_ds.checkpoints.tensors import save_tensors
from idlm_ds.checkpoints.weight_files import folder_weights

ASSETS = Path(__file__).resolve().parents[1] / "idlm_ds" / "assets"
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model folder of launchers/pretrain.py")
    parser.add_argument("name", choices=["teacher", "judge"])
    parser.add_argument("--half", action="store_true", help="store float16, to save space")
    args = parser.parse_args()
    folder = ASSETS / args.name
    folder.mkdir(exist_ok=True)
    stored, dtype = folder_weights(args.model), torch.float16 if args.half else None
    weights = {name: whole(stored, name, dtype) for name in stored.names()}
    target = folder / "model.safetensors"
    save_tensors(target, weights, {"format": "pt"})
    for name in FILES:
        shutil.copyfile(args.model / name, folder / name)
    print(f"{folder}: {sum(p.stat().st_size for p in folder.iterdir()) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
