"""One job over two hosts, each with a network of its own."""

import pytest

from tests.cluster.test_slurm import (
    LIMIT_S,
    asked,
    assert_same,
    finish,
    start,
    submit,
)

pytestmark = [pytest.mark.dist, pytest.mark.slow]


def test_the_hosts_are_apart(hosts):
    shown = hosts.call("srun", "-N2", "readlink", "/proc/self/ns/net", "/proc/self/ns/uts")
    assert len(set(shown.stdout.split())) == 4, shown
    assert set(hosts.call("srun", "-N2", "hostname").stdout.split()) == {"n1", "n2"}


def test_a_job_over_two_hosts_is_the_run_of_two_ranks(hosts, toy, tmp_path):
    straight, output = tmp_path / "straight", tmp_path / "run"
    done = finish(start("distill.py", asked(toy, straight), ranks=2))
    assert done.code == 0, done.err
    options = ["--nodes=2", "--ntasks-per-node=1"]
    number = submit(hosts, "distill", options, asked(toy, output))
    job = hosts.wait(number, limit=LIMIT_S)
    text = (hosts.root / f"{number}.out").read_text()
    assert (job["JobState"], job["NodeList"]) == ("COMPLETED", "n[1-2]"), text
    assert_same(output, straight)
