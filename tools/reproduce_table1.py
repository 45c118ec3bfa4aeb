"""Measure the published checkpoints again and hold the figures against the paper's.

python tools/reproduce_table1.py --judge hf:openai-community/gpt2-large --output results/table1
python tools/reproduce_table1.py --stand-ins        # tiny random networks: shows that it runs
"""

from collections.abc import Sequence
from pathlib import Path

from idlm_ds.cli import Parser, launch

TABLE = Path(__file__).resolve().parents[1] / "ds_configs" / "table1.yaml"


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, default=TABLE, help="rows and published figures")
    parser.add_argument(
        "--stand-ins", action="store_true", help="tiny random networks, short texts, small judge"
    )
    parser.add_argument("--judge", default="hf:openai-community/gpt2-large")
    parser.add_argument("--num-samples", type=int, default=512)
    parser.add_argument("--seed", nargs="+", type=int, default=[0], dest="seeds")
    parser.add_argument("--batch-size", type=int, default=32, dest="batch")
    parser.add_argument("--output", type=Path, default=Path("results/table1"))
    parser.add_argument("--local_rank", type=int, help="set by launchers; not used")
    args = parser.parse_args(argv)

    from idlm_ds.engine.dist import in_world
    from idlm_ds.evaluation.grid import GenPplOptions
    from idlm_ds.evaluation.published_table import read_table, run_table

    table = read_table(args.table)
    options = GenPplOptions(
        checkpoints=["the table's"],
        samples=[],
        steps=[1],
        samplers=["ancestral"],
        precisions=["float64"],
        temperatures=[1.0],
        nuclei=[1.0],
        seeds=args.seeds,
        num_samples=4 if args.stand_ins else args.num_samples,
        length=16 if args.stand_ins else table.length,
        batch=args.batch,
        judges=["assets:judge" if args.stand_ins else args.judge],
        process=None,
        tokenizer="assets:tokenizer" if args.stand_ins else table.tokenizer,
        output=args.output,
    )
    with in_world() as world:
        run_table(table, options, world, with_stand_ins=args.stand_ins)


if __name__ == "__main__":
    launch(main)
