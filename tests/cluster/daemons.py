"""A cluster of one's own: munged, slurmctld and slurmd, started by hand in a temporary folder.

Nothing in /etc is read or written, and every port is free when it is chosen. On one machine the
nodes n1 and n2 are two slurmd, or hosts with a network, a name and an /etc/hosts of their own.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = "slurmctld slurmd slurm-client munge"
INSTALL = f"apt-get install -y --no-install-recommends {PACKAGES}"
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}

SIZE = "CPUs=4 RealMemory=4000 Gres=gpu:2 State=UNKNOWN"
"""Of each node: two GPUs that exist in SLURM's books only."""

CONF = """\
ClusterName={cluster}
SlurmctldHost={controller}({address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/sock,cred_expire=5
CredType=cred/munge
SlurmctldPort={port}
SlurmctldPidFile={root}/ctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
StateSaveLocation={root}/ctld
SlurmdSpoolDir={root}/spool.%n
SlurmctldLogFile={root}/log/ctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=20
MinJobAge=300
JobRequeue=1
GresTypes=gpu
{nodes}
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=60 State=UP
"""


def missing() -> str | None:
    """Say why no cluster can be started here, or None."""
    absent = [p for p in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(p)]
    if absent:
        return f"{', '.join(absent)} not installed; {INSTALL}"
    return None if os.geteuid() == 0 else "slurmctld and slurmd are started as root"


def missing_for_hosts() -> str | None:
    """Say why two hosts cannot be simulated here, or None."""
    if reason := missing():
        return reason
    absent = [p for p in ("ip", "nsenter", "unshare") if not shutil.which(p)]
    if absent:
        return f"{', '.join(absent)} not installed"
    name = f"idlm{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return None if made.returncode == 0 else f"no network namespaces: {made.stderr.strip()}"


@dataclass
class Cluster:
    """Two nodes that accept jobs."""

    root: Path
    client: Sequence[str] = ()
    """What a command is started by, to run where clients of the cluster live."""

    daemons: list[subprocess.Popen] = field(default_factory=list)

    def call(self, *command: str, **more) -> subprocess.CompletedProcess[str]:
        """Run a client, which never may wait for ever."""
        environment = more.pop("env", os.environ) | {"SLURM_CONF": str(self.root / "slurm.conf")}
        return subprocess.run(
            [*self.client, *map(str, command)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=more.pop("timeout", 20),
            **more,
        )

    def submit(self, *command: str, **more) -> str:
        """Submit a batch job and return its number."""
        done = self.call("sbatch", "--parsable", *command, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """Return what the controller knows of a job."""
        text = self.call("scontrol", "-o", "show", "job", number).stdout
        return dict(word.split("=", 1) for word in text.split() if "=" in word)

    def wait(self, number: str, *, limit: float, states: set[str] = ENDED) -> dict[str, str]:
        """Wait until a job is in one of these states, and return what is known of it."""
        deadline = time.monotonic() + limit
        while (job := self.job(number)).get("JobState") not in states:
            assert time.monotonic() < deadline, job
            time.sleep(0.2)
        return job

    def start(self, name: str, *command: str) -> None:
        """Start a daemon that stays in the foreground."""
        with (self.root / "log" / f"{name}.out").open("wb") as out:
            self.daemons.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"SLURM_CONF": str(self.root / "slurm.conf")},
                )
            )

    def wait_for_nodes(self, limit: float = 30) -> None:
        """Wait until both nodes are idle."""
        deadline = time.monotonic() + limit
        while self.call("sinfo", "-h", "-N", "-o", "%T").stdout.split() != ["idle", "idle"]:
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        """Return the ends of all logs."""
        files = sorted((self.root / "log").iterdir())
        return "\n".join(f"{f.name}: {f.read_text(errors='replace')[-1500:]}" for f in files)

    def stop(self) -> None:
        """End the jobs first, whose processes would outlive the daemons; then the daemons."""
        with suppress(subprocess.TimeoutExpired):
            for number in self.call("squeue", "-h", "-o", "%A").stdout.split():
                self.call("scancel", number)
            deadline = time.monotonic() + 20
            while self.call("squeue", "-h").stdout.strip() and time.monotonic() < deadline:
                time.sleep(0.1)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


@contextmanager
def _folder() -> Iterator[Path]:
    # The path of munged's socket has to stay below 108 characters.
    root = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    try:
        root.chmod(0o755)
        for name in ("munge", "ctld", "log", "spool.n1", "spool.n2"):
            (root / name).mkdir(mode=0o755)
        (root / "munge" / "key").touch(mode=0o600)
        (root / "munge" / "key").write_bytes(os.urandom(128))
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _start_munge(cluster: Cluster) -> None:
    folder = cluster.root / "munge"
    names = {"socket": "sock", "key-file": "key", "log-file": "log", "pid-file": "pid"}
    files = [f"--{option}={folder / name}" for option, name in names.items()]
    cluster.start("munged", "munged", "--force", "-F", *files, f"--seed-file={folder / 'seed'}")
    deadline = time.monotonic() + 10
    while not (folder / "sock").exists():
        assert time.monotonic() < deadline, cluster.logs()
        time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _configure(root: Path, controller: str, address: str, port: int, nodes: Sequence[str]) -> None:
    where = {"controller": controller, "address": address, "port": port}
    lines = "\n".join(f"{node} {SIZE}" for node in nodes)
    # Clusters that run side by side number their jobs alike; ranks meet on a port of both.
    cluster = f"itest{abs(hash(root)) % 10**6}"
    (root / "slurm.conf").write_text(CONF.format(root=root, nodes=lines, cluster=cluster, **where))
    gpus = [f"NodeName=n[1-2] Name=gpu File={file}\n" for file in ("/dev/null", "/dev/zero")]
    (root / "gres.conf").write_text("".join(gpus))


@contextmanager
def cluster_on_one_host() -> Iterator[Cluster]:
    """Start a cluster whose two nodes are two slurmd of this machine."""
    with _folder() as root:
        port, *own = _free_ports(3)
        host = socket.gethostname().partition(".")[0]
        nodes = [
            f"NodeName=n{i} NodeHostname={host} NodeAddr=127.0.0.1 Port={p}"
            for i, p in enumerate(own, start=1)
        ]
        _configure(root, host, "127.0.0.1", port, nodes)
        cluster = Cluster(root)
        try:
            _start_munge(cluster)
            conf = str(root / "slurm.conf")
            cluster.start("ctld", "slurmctld", "-D", "-i", "-f", conf)
            for name in ("n1", "n2"):
                cluster.start(f"slurmd.{name}", "slurmd", "-D", "-N", name, "-f", conf)
            cluster.wait_for_nodes()
            yield cluster
        finally:
            cluster.stop()


ON_HOST = 'hostname "$0"; mount --bind "$1" /etc/hosts; shift; exec "$@"'


@contextmanager
def cluster_on_two_hosts() -> Iterator[Cluster]:
    """Start a cluster whose two nodes have a network and a name each; clients run on n1."""
    with _folder() as root, _two_networks() as networks:
        addresses = {"n1": "10.88.77.1", "n2": "10.88.77.2"}
        (root / "hosts").write_text("".join(f"{a} {n}\n" for n, a in addresses.items()))
        nodes = [f"NodeName={name} NodeAddr={address}" for name, address in addresses.items()]
        _configure(root, "n1", addresses["n1"], 6817, nodes)

        def on(host: str) -> list[str]:
            # ip netns exec would hide /sys/fs/cgroup, which slurmd wants to see.
            into = ["nsenter", f"--net=/run/netns/{networks[host]}", "unshare", "--uts", "--mount"]
            return [*into, "bash", "-c", ON_HOST, host, str(root / "hosts")]

        cluster = Cluster(root, client=on("n1"))
        try:
            _start_munge(cluster)
            conf = str(root / "slurm.conf")
            cluster.start("ctld", *on("n1"), "slurmctld", "-D", "-i", "-f", conf)
            for name in addresses:
                cluster.start(f"slurmd.{name}", *on(name), "slurmd", "-D", "-f", conf)
            cluster.wait_for_nodes()
            yield cluster
        finally:
            cluster.stop()


@contextmanager
def _two_networks() -> Iterator[dict[str, str]]:
    """Join two network namespaces by a virtual cable."""
    names = {"n1": f"idlm{os.getpid()}a", "n2": f"idlm{os.getpid()}b"}
    first, second = names.values()

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        for name in names.values():
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", "cable", "netns", first, "type", "veth", "peer", "cable", "netns", second)
        for i, name in enumerate(names.values(), start=1):
            ip("-n", name, "addr", "add", f"10.88.77.{i}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
        yield names
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
