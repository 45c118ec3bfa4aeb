"""A program of several ranks that fails as its first argument says.

RANK:WHEN:ERROR, where WHEN is before (the ranks meet), alone (the others wait in a collective) or
never, RANK may be all, and ERROR is user, bug, numerics or killed.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence

from idlm_ds.cli import launch
from idlm_ds.errors import NumericsError, UserError


def fail(error: str) -> None:
    match error:
        case "user":
            raise UserError("data.corpus: no such file: /data/x")
        case "numerics":
            raise NumericsError("the loss is not finite")
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case _:
            raise RuntimeError("a bug")


def main(argv: Sequence[str]) -> None:
    who, when, error = argv[-1].split(":")
    is_it = who in ("all", os.environ.get("RANK", "0"))
    if is_it and when == "before":
        fail(error)

    from idlm_ds.engine.dist import in_world

    with in_world() as world:
        world.barrier()
        sys.stdout.write(f"rank {world.rank} of {world.size}\n")
        if is_it and when == "alone":
            sys.stderr.write(f"fails at {time.time()}\n")
            fail(error)
        world.barrier()


if __name__ == "__main__":
    launch(main)
