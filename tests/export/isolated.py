"""Exports of all students, and what a process saw in them that has torch and transformers only."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from idlm_ds.build.processes import read_family
from idlm_ds.export.write import ExportOptions, export
from idlm_ds.processes.base import Process
from idlm_ds.processes.by_name import make_process
from tests.export.students import (
    CARDS,
    LATENT,
    LENGTH,
    LLADA_MASK,
    WORDS,
    card_of,
    is_llada,
    latent_of,
    write_student,
)

MASKED = (
    "mdlm", "sedd", "llada", "llada in bfloat16", "mdlm of the hub", "mdlm-latent", "llada-latent",
)  # fmt: skip
STEPS, SEED = 5, 11
COMMIT = "0123456789abcdef0123456789abcdef01234567"

BLOCKED = ("idlm_ds", "jaxtyping", "deepspeed", "beartype", "flash_attn")
ISOLATED = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({BLOCKED}))
runpy.run_path({str(Path(__file__).with_name("loader.py"))!r}, run_name="__main__")
"""
"""A module that is None in ``sys.modules`` cannot be imported."""

CHAINS: dict[str, list[dict[str, Any]]] = {
    "mdlm": [{}, {"temperature": 0.7, "nucleus": 0.9, "tail": "greedy"}, {"precision": "float32"}],
    "sedd": [{}, {"sampler": "analytic"}, {"sampler": "euler", "steps": 3}],
    "udlm": [{}, {"steps": 3, "length": 7}],
    "duo": [{}, {"temperature": 0.8}],
    "llada": [{}],
    "mdlm-latent": [{}, {"temperature": 0.7, "tail": "greedy"}, {"precision": "float32"}],
    "udlm-latent": [{}, {"steps": 1}],
    "llada-latent": [{}],
}
"""What is asked for beside the defaults of the folder, by student."""

PROMPTS = [[5, 6, 7], [8, 9, 10], [11, 12, 13]]
BLOCKWISE: list[dict[str, Any]] = [
    {"steps": 4, "block": 4, "length": 8, "temperature": 0.0},
    {"steps": 4, "remasking": "random", "guidance": 0.5, "banned": [0]},
]


@dataclass(frozen=True)
class Seen:
    """What the other process found."""

    folders: dict[str, Path]
    inputs: dict[str, Tensor]
    found: dict[str, Tensor]
    told: dict[str, Any]


def process_of(name: str) -> Process:
    card = card_of(name)
    section = read_family(card.process, Path())
    mask = LLADA_MASK if is_llada(name) else WORDS
    return make_process(asdict(section), card.network["vocab_size"], mask)


def student_of(name: str) -> str:
    return name.split()[0]


def make_inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    clean = torch.randint(0, WORDS - 1, (3, LENGTH), generator=generator)
    hidden = torch.rand(3, LENGTH, generator=generator) < 0.5
    return {
        "clean": clean,
        "sigma": torch.tensor([0.2, 1.0, 4.0], dtype=torch.float64),
        "last is mask": clean.masked_fill(hidden, WORDS),
        "a word is mask": clean.masked_fill(hidden, LLADA_MASK),
        "latents": torch.randn(3, LENGTH, LATENT["latent"], generator=generator),
    }


def ids_of(name: str) -> str:
    if is_llada(name):
        return "a word is mask"
    return "last is mask" if name in MASKED else "clean"


def samples_of(name: str) -> dict[str, dict[str, Any]]:
    common = {"num_samples": 4, "seed": SEED, "batch": 3}
    asked = {f"chain {i}": common | c for i, c in enumerate(CHAINS[student_of(name)])}
    if name not in MASKED:
        return asked
    shared = {"sampler": "blockwise", "seed": SEED, "prompts": PROMPTS, "batch": 2}
    return asked | {f"blockwise {i}": shared | b for i, b in enumerate(BLOCKWISE)}


def task_of(name: str, folder: str, round_trip: str) -> dict[str, Any]:
    return {
        "folder": folder,
        "auto": "AutoModelForCausalLM" if is_llada(name) else "AutoModelForMaskedLM",
        "ids": ids_of(name),
        "has_mask": name in MASKED,
        "is_told_time": bool(CARDS[student_of(name)][0].get("time_conditioning")),
        "has_latent": latent_of(student_of(name)) > 0,
        "samples": samples_of(name),
        "round_trip": round_trip,
        "revision": "main",
    }


def run_exports(root: Path) -> Seen:
    """Export every student below ``root`` and run all of them in one other process."""
    folders = {}
    for name in [*CARDS, "llada in bfloat16"]:
        source = write_student(root / "own" / name, student_of(name))
        folders[name] = root / name.replace(" ", "_")
        export(
            ExportOptions(
                model=str(source),
                output=folders[name],
                chain={"steps": STEPS},
                dtype="bfloat16" if "bfloat16" in name else "float32",
                max_shard_size="60KB" if name == "sedd" else "5GB",
            )
        )
    tasks = {n: task_of(n, str(f), str(root / "again" / f.name)) for n, f in folders.items()}
    put_into_hub_cache(folders["mdlm"], root / "hf" / "hub", "me/mdlm")
    tasks["mdlm of the hub"] = task_of("mdlm of the hub", "me/mdlm", "") | {"revision": COMMIT}
    inputs = make_inputs()
    save_file(inputs, root / "inputs.safetensors")
    job = root / "job.json"
    job.write_text(json.dumps({"inputs": str(root / "inputs.safetensors"), "models": tasks}))
    done = subprocess.run(
        [sys.executable, "-I", "-c", ISOLATED, str(job)],
        env=os.environ
        | {
            "HF_HOME": str(root / "hf"),
            "HF_HUB_OFFLINE": "1",
            # torch would look for this package's entry point, which is hidden there.
            "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
        },
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = json.loads(job.with_suffix(".told.json").read_text())
    return Seen(folders, inputs, load_file(job.with_suffix(".safetensors")), told)


def put_into_hub_cache(folder: Path, cache: Path, name: str) -> None:
    """Lay a folder out as the hub's client does after a download."""
    repository = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)


EVERY = [*CARDS, "llada in bfloat16", "mdlm of the hub"]
