"""What every launcher shares: arguments, start-up order, exit codes."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from idlm_ds.errors import NumericsError, UnsafeCheckpointError, UserError
from idlm_ds.recipes.load import AnyRecipe
from idlm_ds.startup import is_first_rank, prepare_environment, world_size

if TYPE_CHECKING:
    from idlm_ds.build.engines import EngineSetup
    from idlm_ds.runs.session import Session

EXIT_CODES = {UnsafeCheckpointError: 4, UserError: 2, NumericsError: 6}
"""The first class that fits counts."""
EXIT_INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """See base class."""
        raise UserError(message)


def training_parser(description: str, *, recipe: str) -> Parser:
    """Arguments of a program that trains.

    Args:
        description: The first line of its help.
        recipe: The recipe that runs when none is named.
    """
    parser = Parser(description=description)
    parser.add_argument("--config", type=Path, required=True, help="DeepSpeed JSON, engine fields")
    parser.add_argument("--recipe", default=recipe, help="name in ds_configs/recipes, or a path")
    parser.add_argument("--output", type=Path, help="folder of the run (default: runs/RECIPE)")
    parser.add_argument(
        "--resume", nargs="?", const="auto", help="'auto' (newest valid checkpoint) or a folder"
    )
    parser.add_argument("--fresh", action="store_true", help="delete an earlier run in --output")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would run and exit; writes nothing"
    )
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. optim.lr=1e-4")
    return parser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """How a checkpoint is read that does not tell everything, and what launchers inject."""
    parser.add_argument(
        "--process", choices=("mdlm", "sedd", "udlm", "duo"), help="where a checkpoint tells none"
    )
    parser.add_argument("--tokenizer", help="its folder or hub name (default: the checkpoint's)")
    parser.add_argument("--length", type=int, help="tokens of a sequence (default: as in training)")
    parser.add_argument("--batch-size", type=int, default=32, dest="batch")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)


def add_grid_options(parser: argparse.ArgumentParser) -> None:
    """Checkpoints, and every way to draw from each; see ``evaluation.grid.Grid``."""
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        default=[],
        dest="checkpoints",
        help="model folders or files of any layout, hf:OWNER/NAME[@REVISION], assets:teacher",
    )
    parser.add_argument("--steps", nargs="+", type=int, default=[8])
    parser.add_argument(
        "--sampler",
        nargs="+",
        default=["ancestral"],
        choices=("ancestral", "greedy", "analytic", "euler"),
        dest="samplers",
        help="greedy is ancestral with the likeliest token in the last step",
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        default=["float64"],
        choices=("float64", "float32"),
        dest="precisions",
        help="of the draws; float32 repeats the bias of published samplers",
    )
    parser.add_argument("--temperature", nargs="+", type=float, default=[1.0], dest="temperatures")
    parser.add_argument(
        "--nucleus", nargs="+", type=float, default=[1.0], dest="nuclei", help="mass that is kept"
    )
    parser.add_argument("--seed", nargs="+", type=int, default=[0], dest="seeds")
    add_model_options(parser)


def train(
    recipe: AnyRecipe,
    args: argparse.Namespace,
    run: Callable[[AnyRecipe, "EngineSetup", "Session"], object],
) -> None:
    """Describe a run, or join the process group and run it.

    Torch and DeepSpeed are imported here, after the recipe has been found good.
    """
    from idlm_ds.build.engines import engine_setup
    from idlm_ds.engine.dist import in_world
    from idlm_ds.runs.dry_run import describe
    from idlm_ds.runs.session import Options, Session

    output = args.output or Path("runs") / recipe.name
    setup = engine_setup(args.config, recipe, world=world_size())
    if args.dry_run:
        if is_first_rank():
            describe(recipe, setup, output)
        return
    options = Options(output=output, resume=args.resume, fresh=args.fresh)
    with in_world() as world:
        run(recipe, setup, Session(recipe, options, world))


def launch(main: Callable[[Sequence[str]], None]) -> NoReturn:
    """Run a launcher's ``main`` and leave with the right exit code."""
    prepare_environment()
    code = 0
    try:
        main(sys.argv[1:])
    except (UserError, NumericsError) as error:
        code = next(c for kind, c in EXIT_CODES.items() if isinstance(error, kind))
        if is_first_rank():
            sys.stderr.write(f"error: {error}\n")
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    sys.exit(code)
