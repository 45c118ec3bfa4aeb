"""The launcher of distillation, with a disk that is slow or full.

Arguments: seconds that each file of a checkpoint takes, the rank whose disk is full after its first
checkpoint (-1 for none), then the launcher's own.
"""

import errno
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Replace the function that hashes what was written, then do as the launcher does."""
    sys.path.insert(0, str(ROOT / "launchers"))
    seconds, full = float(sys.argv[1]), int(sys.argv[2])
    del sys.argv[1:3]

    from distill import main as distil

    from idlm_ds import cli
    from idlm_ds.checkpoints import transaction

    describe = transaction.describe

    def slowly(path: Path) -> transaction.FileEntry:
        time.sleep(seconds)
        is_shard = path.suffix == ".safetensors"
        if is_shard and int(os.environ["RANK"]) == full and any(path.parents[2].glob("step-*")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return describe(path)

    transaction.describe = slowly
    cli.launch(distil)


main()
