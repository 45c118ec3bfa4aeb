"""Rows are found by name, and what they name is imported when it is needed."""

import subprocess
import sys

import pytest

from idlm_ds.processes.base import Process
from idlm_ds.registry.families import FAMILIES, FamilyRow, is_masked, sampled_as, sees_time
from idlm_ds.registry.samplers import SAMPLERS, TAILS
from idlm_ds.registry.table import by_name, default, load, look_up

ROWS = [
    FamilyRow(
        name=name, entry_point="idlm_ds.processes.base:Process", is_masked=True, sees_time=False
    )
    for name in ("b", "a", "c")
]


def test_rows_keep_their_order_and_the_first_is_the_default():
    table = by_name(*ROWS)
    assert list(table) == ["b", "a", "c"]
    assert table["a"] is ROWS[1]
    assert default(table) == "b"
    assert default(TAILS) == default(SAMPLERS) == "ancestral"


@pytest.mark.parametrize("name", ["d", "", None, ["a"], 3])
def test_an_unknown_name_is_answered_with_those_there_are(name):
    with pytest.raises(ValueError, match="^") as refused:
        look_up(by_name(*ROWS), name, "process.name")
    assert str(refused.value) == f"process.name must be b, a or c, got {name!r}"


def test_an_entry_point_is_a_name_in_a_module_or_within_a_class():
    assert load("idlm_ds.processes.base:Process") is Process
    assert load("idlm_ds.processes.base:Process.step") is Process.step
    with pytest.raises(ModuleNotFoundError):
        load("idlm_ds.nowhere:Process")
    with pytest.raises(AttributeError):
        load("idlm_ds.processes.base:Procession")


def test_facts_of_families_that_nobody_knows_are_unknown():
    assert (is_masked("mdlm"), is_masked("udlm"), is_masked("x"), is_masked(None)) == (
        True,
        False,
        False,
        False,
    )
    assert (sees_time("mdlm"), sees_time("duo"), sees_time("x"), sees_time(None)) == (
        False,
        True,
        None,
        None,
    )
    assert {name: sampled_as(name) for name in FAMILIES} == {
        "mdlm": "mdlm",
        "sedd": "sedd",
        "udlm": "udlm",
        "duo": "udlm",
    }
    with pytest.raises(ValueError, match="process.name must be mdlm, sedd, udlm or duo, got 'x'"):
        sampled_as("x")


def test_looking_names_up_imports_no_torch():
    modules = ("families", "layouts", "methods", "networks", "samplers")
    imports = ", ".join(f"idlm_ds.registry.{module}" for module in modules)
    program = f"import sys, {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
