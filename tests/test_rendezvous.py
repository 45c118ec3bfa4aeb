"""The variables of each launcher give the rank and the meeting point, or one line."""

import subprocess

import pytest

from idlm_ds import rendezvous
from idlm_ds.errors import UserError

GROUP = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def step(rank: int = 0, size: int = 2, nodes: str = "n1", per_node: str = "2", **more) -> dict:
    """What srun sets in a task, beside the job's own variables."""
    return {
        "SLURM_JOB_ID": "41",
        "SLURM_NTASKS": str(size),
        "SLURM_JOB_NODELIST": nodes,
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(size),
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_STEP_TASKS_PER_NODE": per_node,
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        **more,
    }


def open_mpi(rank: int, size: int, local_rank: int, local_size: int) -> dict:
    return {
        "PMIX_NAMESPACE": "2378104833",
        "PMIX_RANK": str(rank),
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(size),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(local_rank),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(local_size),
    }


def hydra(rank: int, size: int) -> dict:
    return {
        "PMI_RANK": str(rank),
        "PMI_SIZE": str(size),
        "MPI_LOCALRANKID": str(rank),
        "MPI_LOCALNRANKS": str(size),
    }


def place(environ: dict) -> tuple:
    """Rank, local rank and world size of a process."""
    found = {**environ, **rendezvous.missing_variables(environ)}
    rendezvous.require_meeting_point(found)
    return tuple(int(found[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (step(1), (1, 1, 2)),
        (open_mpi(3, 4, 1, 2) | {"MASTER_ADDR": "n1"}, (3, 1, 4)),
        (hydra(1, 2), (1, 1, 2)),
        (
            {"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_LOCAL_RANK": "1", "PMI_LOCAL_SIZE": "2"},
            (1, 1, 2),
        ),
        (
            {f"MV2_COMM_WORLD_{k}": "2" for k in ("SIZE", "LOCAL_SIZE")}
            | {f"MV2_COMM_WORLD_{k}": "1" for k in ("RANK", "LOCAL_RANK")},
            (1, 1, 2),
        ),
    ],
    ids=["srun", "open mpi", "mpich", "cray", "mvapich"],
)
def test_every_starter_is_understood(environ, expected):
    assert place(environ) == expected


def test_tasks_on_one_host_meet_there_on_a_port_of_the_job():
    first, second = (rendezvous.missing_variables(step(rank)) for rank in (0, 1))
    assert first["MASTER_ADDR"] == "127.0.0.1"
    assert {k: first[k] for k in ("MASTER_ADDR", "MASTER_PORT", "LOCAL_WORLD_SIZE")} == {
        k: second[k] for k in ("MASTER_ADDR", "MASTER_PORT", "LOCAL_WORLD_SIZE")
    }
    ports = {
        rendezvous.missing_variables(step(SLURM_JOB_ID=str(job), SLURM_STEP_ID=str(number)))[
            "MASTER_PORT"
        ]
        for job in range(40, 44)
        for number in range(3)
    }
    assert len(ports) == 12
    elsewhere = rendezvous.missing_variables(step(SLURM_CLUSTER_NAME="other"))["MASTER_PORT"]
    assert elsewhere != rendezvous.missing_variables(step())["MASTER_PORT"]
    assert all(1024 <= int(port) < 32768 for port in ports)


def test_tasks_on_several_hosts_meet_on_the_first(monkeypatch):
    monkeypatch.setattr(rendezvous, "address_of", lambda host: f"address of {host}")
    environ = step(2, 3, "n[07-08]", "2,1", SLURM_LOCALID="0", SLURM_NODEID="1")
    found = rendezvous.missing_variables(environ)
    assert found["MASTER_ADDR"] == "address of n07"
    assert (found["LOCAL_WORLD_SIZE"], found["LOCAL_RANK"]) == ("1", "0")


def test_the_address_of_a_host_comes_from_the_resolver_or_from_slurm(monkeypatch):
    assert rendezvous.address_of("localhost") == "localhost"
    shown = subprocess.CompletedProcess([], 0, "NodeName=n1\n   NodeAddr=10.8.7.1 NodeHostName=n1")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: shown)
    assert rendezvous.address_of("no-such-host.invalid") == "10.8.7.1"

    def absent(*args, **kwargs):
        raise FileNotFoundError("scontrol")

    monkeypatch.setattr(subprocess, "run", absent)
    with pytest.raises(UserError, match=r"no-such-host.invalid .* set MASTER_ADDR"):
        rendezvous.address_of("no-such-host.invalid")


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("n1", "n1"),
        ("n[1-2]", "n1"),
        ("n[003-010,12],m[1-3]", "n003"),
        ("gpu-a[7,9]-ib,b", "gpu-a7-ib"),
        ("rack[0-1]n[2-3]", "rack0n2"),
        ("a.b.example,c", "a.b.example"),
    ],
)
def test_the_first_host_of_a_compact_list(hosts, first):
    assert rendezvous.first_host(hosts) == first


@pytest.mark.parametrize("hosts", ["", "n[", "[]", "n1]", ",n1", "n[a-b]"])
def test_what_is_no_list_of_hosts_is_refused(hosts):
    with pytest.raises(UserError, match="SLURM_STEP_NODELIST"):
        rendezvous.first_host(hosts)


def test_compact_task_counts():
    assert [rendezvous.tasks_of_node("2(x3),1,4(x2)", n) for n in range(6)] == [2, 2, 2, 1, 4, 4]
    for counts, node in (("2(x2)", 2), ("", 0), ("x", 0), ("2(x)", 0)):
        with pytest.raises(UserError, match="SLURM_STEP_TASKS_PER_NODE"):
            rendezvous.tasks_of_node(counts, node)


BATCH_SCRIPT = {
    "SLURM_JOB_ID": "41",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NODELIST": "n1",
    "SLURM_TASKS_PER_NODE": "2",
}


@pytest.mark.parametrize("more", [{}, {"SLURM_STEP_ID": "4294967291"}])
def test_a_batch_script_is_one_process_and_says_so(more):
    environ = BATCH_SCRIPT | more
    assert rendezvous.missing_variables(environ) == {}
    note = rendezvous.note_on_one_process(environ)
    assert note
    assert "not started by srun" in note


def test_nothing_is_said_where_one_process_is_what_was_asked_for():
    launched = {"RANK": "0", "WORLD_SIZE": "2"}
    for environ in ({}, BATCH_SCRIPT | {"SLURM_NTASKS": "1"}, step(0, 1), BATCH_SCRIPT | launched):
        assert rendezvous.note_on_one_process(environ) is None


def test_an_interactive_shell_is_one_process():
    environ = step(0, 1, SLURM_NTASKS="8", SLURM_STEP_TASKS_PER_NODE="1")
    assert place(environ) == (0, 0, 1)


@pytest.mark.parametrize("launched", [{"SLURM_STEP_NUM_TASKS": "1"}, {}, open_mpi(0, 2, 0, 1)])
def test_what_a_launcher_has_set_stays(launched):
    environ = step(0, 2, "n[1-2]", "1(x2)") | launched
    environ |= dict(zip(GROUP, ("5", "1", "8", "4", "host", "1234"), strict=True))
    found = rendezvous.missing_variables(environ)
    assert not set(found) & set(GROUP)


def test_a_script_may_export_part_of_what_srun_says():
    environ = step(1) | {"WORLD_SIZE": "2", "MASTER_ADDR": "n9", "MASTER_PORT": "1234"}
    found = rendezvous.missing_variables(environ)
    assert found == {"RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "LOCAL_SIZE": "2"}
    assert rendezvous.missing_variables(environ | {"RANK": "1"})["LOCAL_RANK"] == "1"


def test_mpi_inside_a_step_of_srun_is_asked_first():
    # mpiexec starts its daemons with srun, one a host: their step is not that of the processes.
    assert place(step(0, 1) | hydra(3, 4)) == (3, 3, 4)
    # srun --mpi=pmi2 sets both, and says the local rank in its own variables only.
    assert place(step(1) | {"PMI_RANK": "1", "PMI_SIZE": "2"}) == (1, 1, 2)
    assert place(step(1) | {"PMIX_RANK": "1"}) == (1, 1, 2)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"RANK": "1"}, "RANK is set and WORLD_SIZE is not"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2, but WORLD_SIZE is 2; allowed: 0 to 1"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK is '-1'"),
        ({"RANK": "", "WORLD_SIZE": "2"}, "RANK is ''"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK is 'one'; allowed: a whole number, 0 or more"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0'; allowed: a whole number, 1 or more"),
        ({"WORLD_SIZE": "1.5"}, "WORLD_SIZE is '1.5'"),
        ({"WORLD_SIZE": "9" * 10}, "WORLD_SIZE is '9999999999'"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK is 'x'"),
        ({"LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "2"}, "LOCAL_RANK is 2, but LOCAL_WORLD_SIZE"),
        ({"LOCAL_SIZE": "no"}, "LOCAL_SIZE is 'no'"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "http"}, "MASTER_PORT is 'http'"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "65536"}, "a whole number, 1 to 65535"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "n"}, "MASTER_PORT not set"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1234"}, "MASTER_ADDR not set"),
        ({"WORLD_SIZE": "2"}, "RANK and MASTER_ADDR and MASTER_PORT not set"),
        (step() | {"WORLD_SIZE": "4"}, "srun started 2 processes"),
        (open_mpi(1, 4, 1, 2), "Open MPI does not say on which of several hosts rank 0 runs"),
        ({"OMPI_COMM_WORLD_RANK": "1"}, "OMPI_COMM_WORLD_RANK is set, but"),
        ({"PMI_SIZE": "2"}, "PMI_SIZE is set, but"),
        ({"PMIX_RANK": "1"}, "PMIX_RANK is set, but"),
        ({"SLURM_PROCID": "1"}, "SLURM_PROCID is set, but"),
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, "PMI does not say which process of its host"),
        (step(2), "RANK is 2, but WORLD_SIZE is 2"),
        (step(0, 2, "n[", "1(x2)"), "SLURM_STEP_NODELIST: 'n['"),
        (step(0, SLURM_STEP_TASKS_PER_NODE="many"), "SLURM_STEP_TASKS_PER_NODE: 'many'"),
        (step(0, SLURM_PROCID="zero"), "SLURM_PROCID is 'zero'"),
        (step(0, 2, "n1,n2", "1(x2)", SLURM_DISTRIBUTION="arbitrary"), "MASTER_ADDR is not set"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_does_not_fit_is_one_line(environ, words):
    with pytest.raises(UserError) as refused:
        place(environ)
    message = str(refused.value)
    assert words in message
    assert len(message) <= 200
    assert message.isprintable()
