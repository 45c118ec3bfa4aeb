"""Plot the loss curves of one or more pretraining runs.

python tools/plot_training.py curves.png teacher=runs/pretrain_teacher judge=runs/pretrain_judge
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SMOOTHING = 50
"""Steps in the moving average."""


def read(folder: Path, phase: str) -> tuple[list[int], list[float]]:
    """Read steps and losses of one phase from the metrics of a run."""
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    points = [(r["step"] + 1, r["loss"]) for r in lines if r["phase"] == phase]
    return [s for s, _ in points], [v for _, v in points]


def smooth(values: list[float]) -> list[float]:
    """Average each value with up to ``SMOOTHING - 1`` before it."""
    windows = (values[max(0, i - SMOOTHING + 1) : i + 1] for i in range(len(values)))
    return [sum(w) / len(w) for w in windows]


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figure", type=Path)
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER")
    args = parser.parse_args()
    figure, axes = plt.subplots(
        1, len(args.runs), figsize=(5.2 * len(args.runs), 3.6), squeeze=False
    )
    for axis, run in zip(axes[0], args.runs, strict=True):
        name, _, folder = run.partition("=")
        steps, losses = read(Path(folder), "pretrain")
        axis.plot(steps, smooth(losses), color="#0072B2", lw=1, label=f"train, mean of {SMOOTHING}")
        axis.plot(
            *read(Path(folder), "heldout"), color="#D55E00", marker=".", label="held-out, EMA"
        )
        axis.set(title=name, xlabel="step", ylabel="nats per token")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
        print(f"{name}: last held-out loss {read(Path(folder), 'heldout')[1][-1]:.4f} nats/token")
    figure.tight_layout()
    figure.savefig(args.figure, dpi=110)


if __name__ == "__main__":
    main()
