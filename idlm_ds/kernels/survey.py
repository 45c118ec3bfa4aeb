"""Every kernel compiled for the GPUs in use, none of which has to be there.

``python -m idlm_ds.kernels.survey`` writes registers, stack and shared memory of each as JSON. It
runs in a process of its own, since a process that interprets kernels cannot compile any.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict

import torch

from idlm_ds.errors import UserError
from idlm_ds.kernels.cases import Sizes, cases
from idlm_ds.kernels.launch import Launch, collecting

ARCHITECTURES = (80, 90)

SIZES = Sizes(rows=16, batch=2, length=64)
"""Widths of published models; nothing but the grid depends on the rest."""


def launches() -> Iterator[tuple[str, Launch]]:
    """Yield what the operators launch, named by folder and kernel.

    A kernel comes again with other settings: that of ``rope`` in its backward pass.
    """
    names: set[str] = set()
    for case in cases(SIZES, torch.device("cpu")):
        with collecting() as collected:
            case.run("triton_impl", case.inputs())
        for launch in collected:
            name = f"{case.folder}, {launch.name}"
            while name in names:
                name += ", again"
            names.add(name)
            yield name, launch


def compiled() -> dict[str, dict[str, dict[str, int]]]:
    """Compile every kernel in a process of its own; usage by kernel and architecture.

    Raises:
        UserError: A kernel does not compile.
    """
    # One that imports Triton without its interpreter.
    command = ["env", "-u", "TRITON_INTERPRET", sys.executable, "-m", __name__]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"kernels: {(done.stderr.splitlines() or ['?'])[-1]}")
    usages: dict[str, dict[str, dict[str, int]]] = json.loads(done.stdout)
    return usages


def main() -> None:
    """Write the table."""
    from idlm_ds.kernels.ahead import compile_ahead

    usages = {
        name: {arch: asdict(compile_ahead(launch, arch)) for arch in ARCHITECTURES}
        for name, launch in launches()
    }
    json.dump(usages, sys.stdout)


if __name__ == "__main__":
    main()
