"""Promises about the tree as a whole."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import idlm_ds
from idlm_ds.recipes.load import RECIPES, load_recipe
from idlm_ds.recipes.schema import DistillRecipe, PretrainRecipe

ROOT = Path(idlm_ds.__file__).parents[1]
SOURCES = sorted((ROOT / "idlm_ds").rglob("*.py"))


def limit(path: Path) -> int:
    return {"launchers": 80, "tools": 120}.get(path.parent.name, 400)


@pytest.mark.parametrize(
    "path",
    [*SOURCES, *sorted((ROOT / "launchers").glob("*.py")), *sorted((ROOT / "tools").glob("*.py"))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_no_file_outgrows_its_limit(path):
    assert len(path.read_text().splitlines()) <= limit(path)


def test_the_top_level_holds_what_it_should_and_nothing_else():
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True
    )
    top = {name.split("/")[0] for name in listed.stdout.split()}
    folders = {"idlm_ds", "ds_configs", "launchers", "tools", "tests", "docs", ".ci"}
    assert top == folders | {"setup.py", "README.md", "LICENSE", "pyproject.toml", ".gitignore"}


def test_importing_the_package_imports_no_torch():
    program = "import sys, idlm_ds, idlm_ds.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_no_source_can_execute_a_pickle():
    pattern = re.compile(r"\bimport pickle\b|torch\.load\(|trust_remote_code=True|yaml\.load\(")
    offenders = [str(p) for p in SOURCES if pattern.search(p.read_text())]
    assert offenders == []


def test_metrics_open_no_files():
    pattern = re.compile(r"\b(pathlib|os|open|json|hashlib|safetensors)\b|from_pretrained")
    modules = sorted((ROOT / "idlm_ds" / "metrics").glob("*.py"))
    imports = {p.name: re.findall(r"^(?:import|from) .*$", p.read_text(), re.M) for p in modules}
    offenders = {
        name: line for name, lines in imports.items() for line in lines if pattern.search(line)
    }
    assert offenders == {}
    assert not [p.name for p in modules if re.search(r"from_pretrained|\bopen\(", p.read_text())]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_reads(path):
    kind = PretrainRecipe if path.stem.startswith("pretrain") else DistillRecipe
    assert load_recipe(kind, path.stem).name == path.stem


def test_embedded_assets_stay_small():
    files = [p for p in (ROOT / "idlm_ds" / "assets").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 25e6
    assert not [p for p in files if p.suffix in {".bin", ".pt", ".ckpt", ".pkl"}]


@pytest.mark.parametrize("name", ["teacher", "judge"])
def test_embedded_networks_come_with_their_story(name):
    folder = ROOT / "idlm_ds" / "assets" / name
    assert json.loads((folder / "config.json").read_text())[
        "vocab_size" if name == "judge" else "network"
    ]
    assert (folder / "model.safetensors").is_file()
    assert f"pretrain_{name}" in (ROOT / "idlm_ds" / "assets" / "README.md").read_text()


def test_the_readme_gives_the_two_commands():
    readme = (ROOT / "README.md").read_text()
    assert (
        "pip install -e . && deepspeed launchers/distill.py --config ds_configs/zero3.json"
        in readme
    )
    assert "pip install -e '.[test]' && pytest" in readme
    assert "pip install -e '.[test]' && pytest" in (ROOT / ".ci" / "run").read_text()


def type_names(source: str) -> list[str]:
    """Names of the classes and type aliases of a file."""
    names = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ClassDef(name=name):
                names.append(name)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=ast.Name(id="TypeAlias")):
                names.append(name)
    return names


def test_type_names_are_those_of_classes_and_aliases():
    source = "class A:\n    class B: ...\nC: TypeAlias = int\nD: int = 1\nE = A"
    assert type_names(source) == ["A", "C", "B"]


def test_no_two_types_have_one_name():
    # Exported classes have the names that the published releases gave them.
    sources = [path for path in SOURCES if "remote" not in path.parts]
    names = [name for path in sources for name in type_names(path.read_text())]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []
