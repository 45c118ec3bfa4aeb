"""The place of a process among its peers, from the variables of whatever started it.

``deepspeed`` and ``torchrun`` set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
``srun`` and ``mpiexec`` set variables of their own, which are translated here. Functions take an
environment and change none.
"""

import re
import socket
import subprocess
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, repeat

from idlm_ds.errors import UserError

Environment = Mapping[str, str]

FIRST_PORT, NUM_PORTS = 10_000, 20_000
"""Unprivileged ports below those that Linux hands out by itself."""

MANY = 2**31 - 1

USUAL_PORT = 29_500
"""torch's own choice, for jobs that have no identity to derive one from."""


@dataclass(frozen=True, slots=True)
class Starter:
    """A program that starts one process per task, and the variables it sets in each of them."""

    name: str
    rank: str
    size: str
    local_rank: tuple[str, ...]
    local_size: tuple[str, ...]


STARTERS = (
    Starter(
        "Open MPI",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        ("OMPI_COMM_WORLD_LOCAL_RANK",),
        ("OMPI_COMM_WORLD_LOCAL_SIZE",),
    ),
    Starter(
        "MVAPICH",
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_SIZE",
        ("MV2_COMM_WORLD_LOCAL_RANK",),
        ("MV2_COMM_WORLD_LOCAL_SIZE",),
    ),
    # MPICH, Intel MPI and Cray; the first two name the place in the host like no other.
    Starter(
        "PMI",
        "PMI_RANK",
        "PMI_SIZE",
        ("MPI_LOCALRANKID", "PMI_LOCAL_RANK"),
        ("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"),
    ),
)
# Only srun sets the number of tasks of a step. A batch script has SLURM_PROCID=0 and SLURM_NTASKS
# as well, and is one process.
SRUN = Starter("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ("SLURM_LOCALID",), ())

JOB_IDS = ("PMIX_NAMESPACE", "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "JOB_ID")


def missing_variables(environ: Environment) -> dict[str, str]:
    """Return the variables of the process group that can be derived and are not set.

    Raises:
        UserError: Variables contradict each other, or are not enough to find the other processes.
    """
    check(environ)
    if "RANK" in environ and "WORLD_SIZE" not in environ:
        raise UserError("RANK is set and WORLD_SIZE is not; set both or neither")
    starter = _starter(environ)
    if starter is None:
        return {}
    rank, size = number(environ, starter.rank), number(environ, starter.size)
    if "WORLD_SIZE" in environ and int(environ["WORLD_SIZE"]) != size:
        if "RANK" in environ:  # started by a launcher inside the job, which knows better
            return {}
        raise UserError(
            f"WORLD_SIZE is {environ['WORLD_SIZE']}, but {starter.name} started {size} processes "
            f"({starter.size}); unset WORLD_SIZE, or set RANK too"
        )
    if int(environ.get("RANK", rank)) != rank:
        return {}
    variables = {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        **_in_host(environ, starter, rank, size),
    }
    if size > 1:
        variables |= _meeting_point(environ, starter, {**variables, **environ})
    variables = {name: value for name, value in variables.items() if name not in environ}
    check({**environ, **variables})
    return variables


def check(environ: Environment) -> None:
    """Check that the variables of the process group that are set make sense together.

    Raises:
        UserError: One is no number, or out of range.
    """
    size = _optional(environ, "WORLD_SIZE", least=1)
    local_size = _optional(environ, "LOCAL_WORLD_SIZE", least=1)
    _optional(environ, "LOCAL_SIZE", least=1)
    for name, count, bound in (
        ("RANK", size, "WORLD_SIZE"),
        ("LOCAL_RANK", local_size, "LOCAL_WORLD_SIZE"),
    ):
        value = _optional(environ, name, least=0)
        if value is not None and count is not None and value >= count:
            raise UserError(f"{name} is {value}, but {bound} is {count}; allowed: 0 to {count - 1}")
    if size is not None and size > 1:
        _optional(environ, "MASTER_PORT", least=1, most=65_535)


def require_meeting_point(environ: Environment) -> None:
    """Check that a process of several knows its rank and where to meet the others.

    Raises:
        UserError: A variable is missing.
    """
    if int(environ.get("WORLD_SIZE", "1")) == 1:
        return
    missing = [n for n in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not environ.get(n)]
    if missing:
        raise UserError(
            f"WORLD_SIZE is {environ['WORLD_SIZE']}, but {' and '.join(missing)} not set; start "
            "the program with deepspeed, torchrun, srun or mpiexec, or set them in every process"
        )


def note_on_one_process(environ: Environment) -> str | None:
    """Say why a process of a job with several tasks runs alone; None where nothing is to say."""
    tasks = environ.get("SLURM_NTASKS", "1")
    if "RANK" in environ or tasks == "1" or SRUN.size in environ:
        return None
    return f"slurm: one process, not started by srun; `srun python ...` starts the job's {tasks}"


def first_host(hosts: str) -> str:
    """Return the first of SLURM's compact list of hosts: ``a[03-05,9],b`` gives ``a03``.

    Raises:
        UserError: It is not such a list.
    """
    match = re.match(r"(?:[^\[\],\s]|\[\d+[^\[\]]*\])+(?=,|$)", hosts)
    if match is None:
        raise UserError(f"SLURM_STEP_NODELIST: {hosts[:80]!r} is no list of hosts")
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", match.group())


def tasks_of_node(counts: str, node: int) -> int:
    """Read SLURM's compact list of task counts: ``2(x3),1`` gives 2 for nodes 0 to 2, 1 for 3.

    Raises:
        UserError: It is not such a list, or ends before the node.
    """
    parts = [re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part) for part in counts.split(",")]
    if all(parts):
        groups = (repeat(int(p[1]), int(p[2] or 1)) for p in parts if p)
        for index, count in enumerate(chain.from_iterable(groups)):
            if index == node:
                return count
    raise UserError(f"SLURM_STEP_TASKS_PER_NODE: {counts[:80]!r} says nothing about node {node}")


def _starter(environ: Environment) -> Starter | None:
    """Find what started this process; the innermost, where one runs inside another."""
    partial = None
    for starter in STARTERS:
        present = [name for name in (starter.rank, starter.size) if name in environ]
        if len(present) == 2 and not _is_also_srun(environ, starter):
            return starter
        if len(present) == 1:
            partial = present[0]
    if SRUN.size in environ:
        return SRUN
    if environ.get("SLURM_PROCID", "0") != "0":
        partial = "SLURM_PROCID"
    elif "PMIX_RANK" in environ:
        partial = "PMIX_RANK"
    if partial and not {"RANK", "WORLD_SIZE"} <= environ.keys():
        raise UserError(
            f"{partial} is set, but rank and number of processes are not known; set RANK, "
            "LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in every process"
        )
    return None


def _is_also_srun(environ: Environment, starter: Starter) -> bool:
    """Tell whether srun set these variables for MPI; its own say more."""
    return all(
        environ.get(theirs) == environ[ours]
        for ours, theirs in ((starter.rank, SRUN.rank), (starter.size, SRUN.size))
    )


def _in_host(environ: Environment, starter: Starter, rank: int, size: int) -> dict[str, str]:
    local_rank = next((n for n in starter.local_rank if n in environ), None)
    local_size = next((n for n in starter.local_size if n in environ), None)
    variables = {}
    if local_rank is not None:
        variables["LOCAL_RANK"] = str(number(environ, local_rank))
    elif size == 1:
        variables["LOCAL_RANK"] = "0"
    elif "LOCAL_RANK" not in environ:
        raise UserError(
            f"LOCAL_RANK: {starter.name} does not say which process of its host rank {rank} is "
            f"({' or '.join(starter.local_rank)}); set LOCAL_RANK in every process"
        )
    if local_size is not None:
        count = number(environ, local_size, least=1)
    elif starter is SRUN and "SLURM_STEP_TASKS_PER_NODE" in environ:
        node = number(environ, "SLURM_NODEID")
        count = tasks_of_node(environ["SLURM_STEP_TASKS_PER_NODE"], node)
    else:
        return variables
    return {**variables, "LOCAL_WORLD_SIZE": str(count), "LOCAL_SIZE": str(count)}


def _meeting_point(environ: Environment, starter: Starter, known: Environment) -> dict[str, str]:
    variables = {}
    if "MASTER_ADDR" not in environ:
        variables["MASTER_ADDR"] = _first_address(environ, starter, known)
    if "MASTER_PORT" not in environ:
        variables["MASTER_PORT"] = str(_port(environ, starter))
    return variables


def _first_address(environ: Environment, starter: Starter, known: Environment) -> str:
    """Return the address of rank 0's host."""
    if known.get("LOCAL_WORLD_SIZE") == known["WORLD_SIZE"]:
        return "127.0.0.1"
    hosts = environ.get("SLURM_STEP_NODELIST", environ.get("SLURM_JOB_NODELIST"))
    # With tasks placed one by one the first task need not be on the first host.
    if starter is SRUN and hosts and environ.get("SLURM_DISTRIBUTION") != "arbitrary":
        return address_of(first_host(hosts))
    raise UserError(
        f"MASTER_ADDR is not set, and {starter.name} does not say on which of several hosts rank 0 "
        "runs; set MASTER_ADDR to that host in every process"
    )


def address_of(host: str) -> str:
    """Return a name or address under which SLURM's node can be reached.

    Raises:
        UserError: Neither the resolver nor SLURM knows it.
    """
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        pass
    else:
        return host
    try:
        shown = subprocess.run(
            ["scontrol", "show", "node", host], capture_output=True, text=True, timeout=20
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        shown = ""
    if match := re.search(r"\bNodeAddr=(\S+)", shown):
        return match[1]
    raise UserError(f"MASTER_ADDR: host {host} of rank 0 has no known address; set MASTER_ADDR")


def _port(environ: Environment, starter: Starter) -> int:
    """Choose a port that all processes of a job agree on and other jobs rarely choose."""
    names = [n for n in JOB_IDS if n in environ][:1]
    if starter is SRUN:
        names = ["SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID"]
    identity = ".".join(environ.get(n, "") for n in names)
    return FIRST_PORT + zlib.crc32(identity.encode()) % NUM_PORTS if identity else USUAL_PORT


def _optional(environ: Environment, name: str, *, least: int, most: int = MANY) -> int | None:
    return number(environ, name, least=least, most=most) if name in environ else None


def number(environ: Environment, name: str, *, least: int = 0, most: int = MANY) -> int:
    """Read a variable that must be set.

    Raises:
        UserError: It is no whole number, or out of range.
    """
    value = environ.get(name, "")
    if not re.fullmatch(r"[0-9]{1,10}", value) or not least <= int(value) <= most:
        allowed = f"{least} or more" if most == MANY else f"{least} to {most}"
        raise UserError(f"{name} is {value[:40]!r}; allowed: a whole number, {allowed}")
    return int(value)
