"""Plot GenPPL against entropy over temperatures: teacher, student, real text, a naive control.

python tools/frontier.py --student runs/quickstart/student --output runs/quickstart/frontier
"""

from collections.abc import Sequence
from pathlib import Path

from idlm_ds.cli import Parser, add_model_options, launch


def main(argv: Sequence[str]) -> None:
    """Run the program."""
    parser = Parser(description=__doc__.splitlines()[0])
    add_model_options(parser)
    parser.add_argument("--teacher", default="assets:teacher", help="as --checkpoint elsewhere")
    parser.add_argument("--student", required=True)
    parser.add_argument("--teacher-steps", nargs="+", type=int, default=[8, 1024])
    parser.add_argument("--student-steps", nargs="+", type=int, default=[8])
    parser.add_argument(
        "--temperature",
        nargs="+",
        type=float,
        default=[0.7, 0.8, 0.9, 1.0],
        dest="temperatures",
    )
    parser.add_argument("--nucleus", nargs="+", type=float, default=[1.0], dest="nuclei")
    parser.add_argument("--corpus", default="assets:sotu", help="where real text is taken from")
    parser.add_argument("--heldout-every", type=int, default=20, help="as in the recipe")
    parser.add_argument(
        "--periods", nargs="+", type=int, default=[8, 16, 32], help="tokens the control repeats"
    )
    parser.add_argument("--num-samples", type=int, default=256)
    parser.add_argument("--seed", nargs="+", type=int, default=[0], dest="seeds")
    parser.add_argument("--judge", nargs="+", default=["assets:judge"], dest="judges")
    parser.add_argument("--output", type=Path, default=Path("results/frontier"))
    args = vars(parser.parse_args(argv))
    del args["local_rank"]

    from idlm_ds.engine.dist import in_world
    from idlm_ds.evaluation.frontier import FrontierOptions, run_frontier
    from idlm_ds.evaluation.grid import GenPplOptions

    names = ("teacher", "student", "teacher_steps", "student_steps", "corpus", "heldout_every")
    own = {name: args.pop(name) for name in (*names, "periods")}
    samples = GenPplOptions(
        checkpoints=[own["teacher"], own["student"]],
        samples=[],
        steps=own["student_steps"],
        samplers=["ancestral"],
        precisions=["float64"],
        **args,
    )
    with in_world() as world:
        run_frontier(FrontierOptions(**own, samples=samples), world)


if __name__ == "__main__":
    launch(main)
