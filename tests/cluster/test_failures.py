"""Under srun an error that only one rank makes is said at once, and ends all of them."""

import re
import subprocess
import time

import pytest

from tests.cluster.test_slurm import ROOT, environment

pytestmark = [pytest.mark.dist, pytest.mark.slow]


@pytest.mark.parametrize("options", [[], ["--kill-on-bad-exit=1"]], ids=lambda v: "".join(v))
@pytest.mark.parametrize(
    ("fails", "code", "line"),
    [
        ("1:alone:user", 2, "error (rank 1 on {host}): data.corpus: no such file: /data/x"),
        ("1:alone:numerics", 6, "error (rank 1 on {host}): the loss is not finite"),
    ],
)
def test_an_error_of_one_rank_ends_all(fails, code, line, options, cluster):
    conf = {"SLURM_CONF": str(cluster.root / "slurm.conf")}
    host = subprocess.run(["hostname"], capture_output=True, text=True).stdout.strip()
    command = ["python", str(ROOT / "tests" / "launchers" / "failing.py"), fails]
    failed = said = None
    text = []
    with subprocess.Popen(
        ["srun", "-n2", *options, *command],
        env=environment() | conf,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for text_line in process.stderr:
            text.append(text_line)
            if match := re.match(r"fails at (.*)", text_line):
                failed = float(match[1])
            elif text_line == f"{line.format(host=host)}\n":
                said = time.time()
        ended = process.wait(30)
    gone = time.time()
    assert ended == code, text
    assert said - failed < 5, text
    assert gone - failed < 30, text
