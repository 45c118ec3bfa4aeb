"""Measurements that need a process of their own."""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from idlm_ds.errors import UserError


def in_own_process(program: str, argv: Sequence[str], only: str) -> dict[str, Any]:
    """Run a program again for one variant, and read the JSON in the last line it prints.

    Raises:
        UserError: It failed.
    """
    command = [sys.executable, program, *argv, "--only", only]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{only} failed: {(done.stderr.splitlines() or ['?'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])
