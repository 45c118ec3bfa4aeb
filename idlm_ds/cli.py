"""What every launcher shares: arguments, start-up order, exit codes."""

import argparse
import atexit
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn, TypeVar

from idlm_ds.console import Message, prefixed
from idlm_ds.errors import (
    EXIT_UNEXPECTED,
    NumericsError,
    Preempted,
    UnsafeCheckpointError,
    UserError,
)
from idlm_ds.leaving import exit_now, exit_within
from idlm_ds.options import add_options, read_options
from idlm_ds.recipes.load import AnyRecipe
from idlm_ds.startup import (
    ask_for_error,
    is_first_rank,
    prepare_environment,
    rank,
    tell_error,
    world_size,
)
from idlm_ds.train import signals

if TYPE_CHECKING:
    from idlm_ds.build.engines import EngineSetup
    from idlm_ds.engine.dist import World
    from idlm_ds.runs.session import RunOptions, Session

T = TypeVar("T")

EXIT_CODES = {UnsafeCheckpointError: 4, UserError: 2, NumericsError: 6}
"""Of an error of several of these classes, the first counts."""
EXIT_PREEMPTED = 75
EXIT_INTERRUPTED = 130

EXIT_HANDLERS_S = 5.0
"""How long exit handlers of a rank may take after a failure."""

LINGER_S = 20.0
"""How long the first rank waits for the others to tell them that it has failed."""

SILENCE_S = 3.0
"""How long a rank may keep its error to itself while it asks whether the first one has the same."""


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


def output_folder(args: argparse.Namespace, recipe: AnyRecipe) -> Path:
    """Return the folder of the run that ``training_parser``'s arguments describe."""
    return args.output or Path("runs") / recipe.name


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
    if args.fresh and args.resume is not None:
        raise UserError("--fresh: deletes what --resume would continue; give one of the two")

    from idlm_ds.build.engines import engine_setup

    output = output_folder(args, recipe)
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
    options = RunOptions(output=output, resume=args.resume, fresh=args.fresh, config=args.config)
    with in_world() as world:
        run(recipe, setup, Session(recipe, _continued(options, world), world))


def _continued(options: "RunOptions", world: "World") -> "RunOptions":
    """Go on where a restarted batch job has to, as the first rank sees it.

    Collective: every rank must call. The folder stays each rank's own, to be compared later.
    """
    begun = options.after_restart() if world.is_first else options
    resume, fresh = world.agree((begun.resume, begun.fresh))
    return replace(options, resume=resume, fresh=fresh)


def launch(
    main: Callable[[Sequence[str]], None], *, is_preemptible: bool = False, is_alone: bool = False
) -> NoReturn:
    """Run a launcher's ``main`` and leave with the right exit code.

    A preemptible one ends in order on the signals of ``train/signals.py``. One that ``is_alone``
    does all of its work in one process: several would do it several times.

    A program leaves without taking the interpreter down, see ``leaving.py``; called from other code
    this ends in ``SystemExit``.
    """
    with signals.watched(EXIT_PREEMPTED) if is_preemptible else nullcontext():
        try:
            signals.loading_begins()
            code = _exit_code_of(_alone(main) if is_alone else main)
        except Preempted as ending:
            # Mostly it came to all ranks, or ended this one because another one has failed.
            text = f"{ending}\n" if str(ending) else None
            code = _fail(EXIT_PREEMPTED, text, is_expected=is_first_rank())
        signals.ending(code)
        if world_size() > 1 or main.__module__ == "__main__":
            _leave(code)
    sys.exit(code)


def _alone(main: Callable[[Sequence[str]], None]) -> Callable[[Sequence[str]], None]:
    """Make a program of one process refuse to be one of several."""

    def checked(argv: Sequence[str]) -> None:
        if world_size() > 1:
            raise UserError(
                f"{Path(sys.argv[0]).name} runs as one process, but {world_size()} were started "
                "(WORLD_SIZE, or srun or mpiexec); start one"
            )
        main(argv)

    return checked


def _exit_code_of(main: Callable[[Sequence[str]], None]) -> int:
    """Run ``main`` and say what is wrong, if something is.

    Raises:
        Exception: Something unexpected, in a run of one process.
    """
    try:
        prepare_environment()
    except UserError as error:
        # Each process has an environment of its own, and without a good one knows no others.
        sys.stderr.write(f"error: {error}\n")
        return EXIT_CODES[UserError]
    try:
        main(sys.argv[1:])
    except (UserError, NumericsError) as error:
        code = next(c for kind, c in EXIT_CODES.items() if isinstance(error, kind))
        return _fail(code, f"error: {error}\n", is_expected=True)
    except KeyboardInterrupt:
        return _fail(EXIT_INTERRUPTED, None)
    except Exception:
        if world_size() == 1:
            raise
        return _fail(EXIT_UNEXPECTED, traceback.format_exc())
    return 0


def _fail(code: int, text: str | None, *, is_expected: bool = False) -> int:
    """Say what is wrong, end the other ranks, and return the exit code of all.

    The first rank says what is wrong with its input at once; another rank says it if the first one
    does not say the same.

    Args:
        code: Exit code of this rank's error.
        text: What this rank has to say, if anything.
        is_expected: Whether it is an error that the program knows, rather than one in it.
    """
    signals.ending(code)
    message = Message(text if is_first_rank() else prefixed(text, rank(), socket.gethostname()))
    if world_size() == 1:
        message.show()
        return code
    if is_first_rank() and is_expected:
        message.show()
    elif is_expected:
        # Torch may have to be imported to ask the first rank, which can take long.
        message.show_after(SILENCE_S)
    first_code = _fail_before_meeting(code, text, message, is_expected=is_expected)
    if first_code is not None:
        return first_code

    failure = _failure_module()
    if failure is None:
        message.show()
        return code
    code, has_own_error = failure.announce(code, text, is_expected=is_expected, shown=message.text)
    if has_own_error:
        message.show()
    message.drop()
    if has_own_error or (is_first_rank() and is_expected):
        failure.record(message.text)
    failure.leave()
    return code


def _failure_module() -> ModuleType | None:
    """Import what tells other ranks of a failure; None where torch cannot be imported."""
    if "torch" not in sys.modules and any(name.startswith("torch.") for name in sys.modules):
        return None  # a signal ended its import, and a second one would crash
    try:
        return import_module("idlm_ds.engine.failure")
    except ImportError:
        return None


def _fail_before_meeting(
    code: int, text: str | None, message: Message, *, is_expected: bool
) -> int | None:
    """Agree on a failure without torch, which a mistake in a recipe need not wait for.

    Returns:
        The exit code of the first rank; None where it is well, or the ranks have met and can agree
        in another way.
    """
    failure = sys.modules.get("idlm_ds.engine.failure")
    if failure is not None and failure.has_met():
        return None
    if text is None:
        return code
    if is_first_rank():
        message.show()
        return code if tell_error(code, text, seconds=LINGER_S) else None
    first = ask_for_error(seconds=SILENCE_S - 0.5)
    if first is None:
        return None
    if is_expected and first[1] != text:
        message.show()
    message.drop()
    return first[0]


def _leave(code: int) -> NoReturn:
    """End the process at once, after its exit handlers.

    After a failure one of these may wait for something that will never come.
    """
    if code:
        exit_within(EXIT_HANDLERS_S, code)
    atexit._run_exitfuncs()
    exit_now(code)
