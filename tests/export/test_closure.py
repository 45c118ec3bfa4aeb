"""Source files as siblings: what is rewritten, and what is refused."""

import ast
import sys

import pytest

from idlm_ds.export import closure
from idlm_ds.export.closure import ClosureError, collect, rewrite, sibling
from idlm_ds.export.fields import codes

ROOTS = [closure.WRAPPERS + code.module for code in codes().values()]


def test_an_import_is_changed_in_place_and_nothing_else_is():
    source = '''"""About from idlm_ds.noise import Noise."""

import math
from idlm_ds.noise import (
    Noise,  # kept
    derive_seed as seed_of,
)


def α(x: "str") -> None:
    if x == "from idlm_ds.noise import Noise":
        from idlm_ds.processes.base import at; return at
    from  idlm_ds.models.dit  import DiT
'''
    text, needed = rewrite(source, "here")
    assert needed == {"idlm_ds.noise", "idlm_ds.processes.base", "idlm_ds.models.dit"}
    assert text == source.replace("\nfrom idlm_ds.noise", "\nfrom .noise").replace(
        "from idlm_ds.processes.base", "from .processes_base"
    ).replace("from  idlm_ds.models.dit  ", "from .models_dit  ")


def test_an_entry_point_is_changed_like_an_import():
    source = """ROW = NamedRow(name="α", entry_point="idlm_ds.processes.mdlm:MDLM")
STEP = "idlm_ds.processes.base:Process.step"
OTHERS = ("idlm_ds", "idlm_ds.noise", "see idlm_ds.noise:Noise", "torch.nn:Linear")
"""
    text, needed = rewrite(source, "here")
    assert needed == {"idlm_ds.processes.mdlm", "idlm_ds.processes.base"}
    assert text == source.replace("idlm_ds.processes.mdlm:", ".processes_mdlm:").replace(
        "idlm_ds.processes.base:", ".processes_base:"
    )


@pytest.mark.parametrize(
    ("table", "needed"),
    [
        ("families", {"processes_mdlm.py", "processes_duo.py", "schedules_cosine.py"}),
        ("samplers", {"processes_base.py", "samplers_score.py", "samplers_blockwise.py"}),
    ],
)
def test_what_rows_name_comes_along(table, needed):
    files = collect(f"idlm_ds.registry.{table}")
    assert needed | {"registry_table.py"} <= files.keys()
    assert "idlm_ds." not in "".join(
        str(node.value)
        for text in files.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and ":" in str(node.value) and " " not in str(node.value)
    )


@pytest.mark.parametrize("root", ROOTS)
def test_entry_points_of_exported_code_are_files_beside_it(root):
    files = collect(root)
    named = [
        node.value.partition(":")[0]
        for text in files.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and str(node.value).startswith(".processes_")
    ]
    assert ".processes_mdlm" in named
    assert {f"{name.removeprefix('.')}.py" for name in named} <= files.keys()


def test_shapes_come_from_the_stand_in():
    text, needed = rewrite("from jaxtyping import Float, Int\n", "here")
    assert text == "from .shape_types import Float, Int\n"
    assert needed == {"idlm_ds.export.remote.shape_types"}


def test_an_operator_comes_in_its_plain_form():
    text, needed = rewrite("from idlm_ds.kernels.rope import rope\n", "here")
    assert text == "from .kernels_rope_reference import rope\n"
    assert needed == {"idlm_ds.kernels.rope.reference"}
    for root in ROOTS:
        assert not [name for name in collect(root) if "triton" in name or "dispatch" in name]


def test_an_optional_package_is_looked_up_when_it_is_used():
    source = (
        "def f():\n    from json.decoder import JSONDecoder as D, scanner\n    return D, scanner\n"
    )
    assert rewrite(source, "here")[0] == source
    text, _ = rewrite(source.replace("json.decoder", "flash_attn.deep"), "here")
    assert not [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import | ast.ImportFrom)]
    scope: dict = {}
    exec(text.replace("flash_attn.deep", "json.decoder"), scope)
    decoder = sys.modules["json.decoder"]
    assert scope["f"]() == (decoder.JSONDecoder, decoder.scanner)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("import idlm_ds.noise", "import idlm_ds.noise: only from ... import ..."),
        ("import torch, einops", "import einops: only from ... import ..."),
        ("from einops import rearrange", "it is not there where the code runs"),
        ("from flash_attn import flash_attn_func", "it is not there where the code runs"),
        ("from idlm_ds import noise", "it is no file of this package"),
        ("from idlm_ds.processes import mdlm", "it is no file of this package"),
        ("from idlm_ds.nowhere import x", "it is no file of this package"),
        ("from idlm_ds . noise import Noise", "it is no file of this package"),
        ("from idlm_ds.noise import *", "names must be listed"),
        ("from . import noise", "a relative import cannot be exported"),
        ("from .noise import Noise", "a relative import cannot be exported"),
        ("x = 'idlm_ds.noise:Noise'", "it is no entry point in a file of this package"),
        ('x = "idlm_ds." "noise:Noise"', "it is no entry point in a file of this package"),
        ('x = "idlm_ds.nowhere:x"', "it is no entry point in a file of this package"),
    ],
)
def test_an_import_that_is_not_understood_is_refused(statement, reason):
    with pytest.raises(ClosureError, match=r"^idlm_ds\.x, line 2: ") as refused:
        rewrite(f"import torch\n{statement}\n", "idlm_ds.x")
    assert reason in str(refused.value)


def test_two_modules_of_one_name_are_refused(monkeypatch):
    sources = {
        "idlm_ds.export.remote.start": "from idlm_ds.a.b import x\nfrom idlm_ds.a_b import y\n",
        "idlm_ds.a.b": "",
        "idlm_ds.a_b": "",
    }
    monkeypatch.setattr(closure, "_read", sources.__getitem__)
    monkeypatch.setattr(closure, "_is_file", lambda module: module in sources)
    with pytest.raises(ClosureError, match=r"a_b\.py: two modules"):
        collect("idlm_ds.export.remote.start")


@pytest.mark.parametrize("root", ROOTS)
def test_the_first_file_names_all_others(root):
    files = collect(root)
    imported = {
        f"{node.module}.py"
        for node in ast.walk(ast.parse(files[f"{sibling(root)}.py"]))
        if isinstance(node, ast.ImportFrom) and node.level == 1
    }
    assert imported == files.keys() - {f"{sibling(root)}.py"}


@pytest.mark.parametrize("root", ROOTS)
def test_code_that_only_training_needs_stays_behind(root):
    folders = {name.split("_")[0].removesuffix(".py") for name in collect(root)}
    assert not folders & {
        "objectives",
        "engine",
        "train",
        "recipes",
        "build",
        "evaluation",
        "runs",
        "data",
        "metrics",
    }
    # Families and samplers are exported; what else has a name here is not.
    registry = {name for name in collect(root) if name.startswith("registry_")}
    assert registry <= {"registry_table.py", "registry_families.py", "registry_samplers.py"}
