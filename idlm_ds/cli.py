"""What every launcher shares: arguments, start-up order, exit codes."""

import argparse
import atexit
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from idlm_ds.errors import NumericsError, UnsafeCheckpointError, UserError
from idlm_ds.options import add_options, read_options
from idlm_ds.recipes.load import AnyRecipe
from idlm_ds.startup import is_first_rank, prepare_environment, world_size

if TYPE_CHECKING:
    from idlm_ds.build.engines import EngineSetup
    from idlm_ds.runs.session import Session

T = TypeVar("T")

EXIT_CODES = {UnsafeCheckpointError: 4, UserError: 2, NumericsError: 6}
"""Of an error of several of these classes, the first counts."""
EXIT_INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """See base class."""
        raise UserError(message)


def training_parser(description: str, *, recipe: str) -> Parser:
    """Arguments of a program that trains, by default as ``recipe`` says."""
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


def parse_options(cls: type[T], description: str, argv: Sequence[str]) -> T:
    """Read the options of a program that are the fields of a dataclass.

    ``--help`` shows the first line of the description, which is the program's docstring.

    Raises:
        UserError: An option is unknown, missing or out of range.
    """
    parser = Parser(description=description.splitlines()[0])
    add_options(parser, cls)
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
    return read_options(cls, vars(parser.parse_args(argv)))


def train(
    recipe: AnyRecipe,
    args: argparse.Namespace,
    run: Callable[[AnyRecipe, "EngineSetup", "Session"], object],
) -> None:
    """Describe a run, or join the process group and run it.

    Torch and DeepSpeed are imported here, after recipe and DeepSpeed file have been found good;
    ``run`` imports them when it is called.
    """
    from idlm_ds.build.engines import engine_setup

    output = args.output or Path("runs") / recipe.name
    setup = engine_setup(args.config, recipe, world=world_size())

    from idlm_ds.console import say
    from idlm_ds.engine.dist import in_world
    from idlm_ds.runs.dry_run import describe
    from idlm_ds.runs.session import RunOptions, Session

    if args.dry_run:
        if is_first_rank():
            describe(recipe, setup, output)
        return
    if setup.note and is_first_rank():
        say(setup.note)
    options = RunOptions(output=output, resume=args.resume, fresh=args.fresh)
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
    if world_size() > 1:
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """End one of several ranks at once, after its exit handlers.

    A thread that a library still runs can abort the interpreter while it is taken down. The job
    would then report as failed a run whose files are all written.
    """
    atexit._run_exitfuncs()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
