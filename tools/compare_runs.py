"""Lay files of results side by side, with differences and whether they exceed the noise.

python tools/compare_runs.py results/a results/b --ignore model --metric gen_ppl entropy
python tools/compare_runs.py runs/seed1 runs/seed2 --csv --output compared.csv
"""

from collections.abc import Sequence
from pathlib import Path

from idlm_ds.cli import Parser, launch


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        help="results.json or report.json files, or their folders; the first is the yardstick",
    )
    parser.add_argument("--metric", nargs="+", default=["gen_ppl", "entropy"], dest="metrics")
    parser.add_argument(
        "--ignore", nargs="+", default=[], help="settings that may differ, such as model or judge"
    )
    parser.add_argument("--csv", action="store_true", help="CSV instead of Markdown")
    parser.add_argument("--output", type=Path, help="write to a file as well")
    args = parser.parse_args(argv)

    from idlm_ds.evaluation.compare import columns, compare, read_results
    from idlm_ds.evaluation.table import to_csv, to_markdown
    from idlm_ds.files import write_atomic

    files = [read_results(path) for path in args.results]
    rows = compare(files, args.metrics, ignore=args.ignore)
    text = to_csv(rows).rstrip() if args.csv else to_markdown(rows, columns(rows))
    print(text)
    if args.output is not None:
        write_atomic(args.output, (text + "\n").encode())


if __name__ == "__main__":
    launch(main, is_alone=True)
