"""Command lines of the programs that draw and measure."""

import argparse
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import get_args

import pytest

import idlm_ds
from idlm_ds.evaluation import options
from idlm_ds.metrics.judge import Masking
from idlm_ds.options import add_options

ROOT = Path(idlm_ds.__file__).parents[1]
PROGRAMS = {
    "tools/eval_genppl.py": options.GenPplOptions,
    "tools/frontier.py": options.FrontierOptions,
    "tools/reproduce_table1.py": options.TableOptions,
    "tools/eval_likelihood.py": options.LikelihoodOptions,
    "tools/eval_accuracy.py": options.AccuracyOptions,
    "tools/infill.py": options.InfillOptions,
    "tools/export_student.py": options.ChainOptions,
    "launchers/sample.py": options.SampleOptions,
}
STUDENT_STEPS = (1, 2, 4, 8, 16, 32)


def actions(cls: type) -> dict[str, argparse.Action]:
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser, cls)
    return {action.option_strings[0]: action for action in parser._actions}


def test_a_flag_takes_the_same_values_in_every_program():
    kinds = defaultdict(set)
    for cls in PROGRAMS.values():
        for flag, action in actions(cls).items():
            kinds[flag].add(tuple(action.choices) if action.choices else action.type)
    chains = ("ancestral", "analytic", "euler")
    assert kinds.pop("--sampler") == {chains, (*chains, "blockwise")}
    assert kinds["--tail"] == {("ancestral", "greedy", "none")}
    assert kinds["--precision"] == {("float64", "float32")}
    assert kinds["--process"] == {("mdlm", "sedd", "udlm", "duo")}
    assert {flag: kind for flag, kind in kinds.items() if len(kind) > 1} == {}
    assert "--batch" not in kinds


def test_sweeps_cover_the_same_steps_by_default():
    assert actions(options.GenPplOptions)["--steps"].default == STUDENT_STEPS
    assert actions(options.FrontierOptions)["--student-steps"].default == STUDENT_STEPS
    for cls in (options.GenPplOptions, options.FrontierOptions):
        assert actions(cls)["--num-samples"].default == 1024


def test_masking_rules_are_those_of_judges():
    assert get_args(options.MaskingRule) == get_args(Masking)


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_imports_no_torch(program):
    """Runs as a program, for what its launcher imports."""
    source = (
        "import runpy, sys\n"
        f"sys.argv = [{program!r}, '--help']\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / program)!r}, run_name='__main__')\n"
        "except SystemExit as ended:\n"
        "    sys.exit(ended.code or int('torch' in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--seed" in done.stdout or "--steps" in done.stdout
