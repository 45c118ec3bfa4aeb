"""Measure preparation against ``datasets.map`` with the same tokenizer.

python tools/bench_data.py
python tools/bench_data.py --source texts.jsonl --tokenizer path/to/gpt2 --json figures.json

Each figure is the best of several rounds, each in a process of its own. For ``datasets.map`` only
the map is timed; preparation includes starting workers, reading, packing, hashing and writing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from idlm_ds.cli import Parser, launch
from idlm_ds.errors import UserError


def measure_map(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Measure ``datasets.map`` with the tokenizer, in one process."""
    import datasets
    from transformers import AutoTokenizer

    from idlm_ds.build.tokenizers import load_tokenizer

    load_tokenizer(args.tokenizer).save(folder / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    datasets.disable_progress_bars()
    cache = str(folder / "cache")
    rows = datasets.load_dataset("json", data_files=args.source, split="train", cache_dir=cache)
    rows = rows.select_columns(["text"])
    began = time.perf_counter()
    done = rows.map(
        lambda batch: {"input_ids": tokenizer(batch["text"])["input_ids"]},
        batched=True,
        remove_columns=["text"],
    )
    seconds = time.perf_counter() - began
    tokens, size = sum(map(len, done["input_ids"])), sum(len(t.encode()) for t in rows["text"])
    return {"seconds": seconds, "tokens": tokens, "bytes": size}


def measure_prepare(args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Measure a whole preparation."""
    from idlm_ds.build.tokenizers import load_tokenizer
    from idlm_ds.data.prepare.plan import PrepareOptions, make_plan
    from idlm_ds.data.prepare.preparation import prepare

    tokenizer, tokens = load_tokenizer(args.tokenizer), []
    options = PrepareOptions(source=args.source, workers=args.workers)
    began = time.perf_counter()
    plan = make_plan(options, tokenizer, lambda: None)
    prepare(plan, folder / "prepared", on_tokens=tokens.append)
    return {"seconds": time.perf_counter() - began, "tokens": sum(tokens)}


MEASURES = {"map": measure_map, "prepare": measure_prepare}


def in_own_process(
    argv: Sequence[str], measure: str, workers: int, threads: str
) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    setting = f"TOKENIZERS_PARALLELISM={threads}"
    command = ["env", setting, sys.executable, __file__, *argv, "--workers", str(workers)]
    done = subprocess.run([*command, "--measure", measure], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"bench_data: {measure} failed: {(done.stderr.splitlines() or ['?'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = Parser(description=__doc__.splitlines()[0])
    sotu = str(Path(__file__).parents[1] / "idlm_ds" / "assets" / "sotu.jsonl.xz")
    parser.add_argument("--source", nargs="+", default=[sotu], help="files of JSON lines")
    parser.add_argument("--tokenizer", default="assets:tokenizer", help="as data.tokenizer")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="the best counts (default: 3)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.measure:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(MEASURES[args.measure](args, Path(folder))))
        return
    measurements = {
        "datasets.map, the tokenizer's threads": ("map", 1, "true"),
        "datasets.map, one thread": ("map", 1, "false"),
        "prepare, 1 worker": ("prepare", 1, "false"),
        f"prepare, {args.workers} workers": ("prepare", args.workers, "false"),
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in measurements}
    # In turns, so that other load on the machine affects all alike.
    for _ in range(args.rounds):
        for name, arguments in measurements.items():
            runs[name].append(in_own_process(argv, *arguments))
    report(runs, args)


def report(runs: dict[str, list[dict[str, float]]], args: argparse.Namespace) -> None:
    """Print the fastest run of each measurement."""
    best = {name: min(rounds, key=lambda run: run["seconds"]) for name, rounds in runs.items()}
    maps = [run for name, run in best.items() if "map" in name]
    megabytes, base = maps[0]["bytes"] / 1e6, min(run["seconds"] for run in maps)
    print(f"{megabytes:.1f} MB of text, best of {args.rounds}; faster: than the faster map")
    print(f"{'':<38} {'seconds':>8} {'MB/s':>6} {'tokens/s':>10} {'faster':>7}")
    for name, run in best.items():
        speed = f"{megabytes / run['seconds']:6.1f} {run['tokens'] / run['seconds']:10,.0f}"
        print(f"{name:<38} {run['seconds']:8.2f} {speed} {base / run['seconds']:6.2f}x")
    if args.json:
        args.json.write_text(json.dumps({"best": best, "all": runs}, indent=1))


if __name__ == "__main__":
    launch(main, is_alone=True)
