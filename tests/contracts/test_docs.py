"""Documentation names only what exists, and the trees in it are the tree on disk."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import idlm_ds

ROOT = Path(idlm_ds.__file__).parents[1]
PACKAGE = ROOT / "idlm_ds"
TOP = ("idlm_ds", "tools", "docs", "tests", "ds_configs", "launchers")
PAGES = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "*.md"], capture_output=True, text=True, check=True
    ).stdout.split()
)

PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(TOP)})/[\w./{{}},*-]*")
SOURCE = re.compile(r"(?<![\w./-])([a-z_]+)/[\w/]+\.(?:py|md)\b")
DOTTED = re.compile(r"(?<![\w./-])idlm_ds(?:\.[A-Za-z_]\w*)+")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def expand(pattern: str) -> list[str]:
    """Write out the alternatives of ``a{b,c}d``."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        return [pattern]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    return [name for part in match.group(1).split(",") for name in expand(head + part + tail)]


def is_path(name: str) -> bool:
    """Tell whether a path, which may have wildcards, matches something in the repository."""
    return any(ROOT.glob(name)) if "*" in name else (ROOT / name).exists()


def is_dotted(name: str) -> bool:
    """Tell whether a dotted name is a module, or defined at the top level or in a class of one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ROOT.joinpath(*parts[:length])
        file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
        if file.is_file():
            return defines(ast.parse(file.read_text()).body, parts[length:])
    return False


def defines(body: list[ast.stmt], names: list[str]) -> bool:
    """Tell whether statements bind the first name, and its body the others."""
    if not names:
        return True
    for statement in body:
        match statement:
            case ast.ClassDef(name=name, body=inner) | ast.FunctionDef(name=name, body=inner):
                if name == names[0]:
                    return defines(inner, names[1:])
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                if name == names[0]:
                    return len(names) == 1
    return False


def dead_names(text: str, page: Path) -> Iterator[str]:
    """Yield what a page cites and does not exist; ``test_extending.py`` runs code in Python."""
    text = re.sub(r"```python\n.*?```", "", text, flags=re.DOTALL)
    for match in PATH.finditer(text):
        yield from (n for n in expand(match.group().rstrip(".,")) if not is_path(n))
    for match in SOURCE.finditer(text):
        if (PACKAGE / match.group(1)).is_dir() and match.group(1) not in TOP:
            name = f"idlm_ds/{match.group()}"
            # `data/x.py` may also be a path relative to the page.
            if not is_path(name) and not (page.parent / match.group()).exists():
                yield match.group()
    yield from (name for name in DOTTED.findall(text) if not is_dotted(name))
    for target in LINK.findall(text):
        path = target.partition("#")[0]
        if path and "://" not in path and not (page.parent / path).exists():
            yield target


def tree_of(page: Path) -> set[str]:
    """Read the folders, with a final slash, and the files of a page's tree."""
    (block,) = re.findall(r"```\n(idlm_ds/\n.*?)```", page.read_text(), re.DOTALL)
    tree = set()
    for line in block.splitlines():
        # Names end where two blanks begin a description; indented ones are in the package.
        names = re.split(r" {2,}", line.strip())[0].split()
        tree |= {f"idlm_ds/{name}" if line.startswith(" ") else name for name in names}
    return tree


def package_tree() -> set[str]:
    """List the packages of idlm_ds, its assets, and its own files.

    Operators are listed in the README of the kernels instead.
    """
    folders = {path.parent for path in PACKAGE.rglob("__init__.py")} | {PACKAGE / "assets"}
    folders -= set((PACKAGE / "kernels").iterdir())
    files = {f"idlm_ds/{p.name}" for p in PACKAGE.glob("*.py") if p.name != "__init__.py"}
    return {f"{path.relative_to(ROOT)}/" for path in folders} | files


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_name_that_a_page_cites_exists(page):
    assert list(dead_names(page.read_text(), page)) == []


@pytest.mark.parametrize(
    ("text", "dead"),
    [
        ("see `idlm_ds/nowhere/x.py`.", "idlm_ds/nowhere/x.py"),
        ("run tools/nothing.py --help", "tools/nothing.py"),
        ("`ds_configs/zero{1,9}.json`", "ds_configs/zero9.json"),
        ("`ds_configs/recipes/*.toml`", "ds_configs/recipes/*.toml"),
        ("(`engine/wheel.py`)", "engine/wheel.py"),
        ("[page](docs/absent.md)", "docs/absent.md"),
        ("[page](absent.md#part)", "absent.md#part"),
        ("`idlm_ds.metrics.absent`", "idlm_ds.metrics.absent"),
        ("`idlm_ds.metrics.judge.Judge.absent`", "idlm_ds.metrics.judge.Judge.absent"),
    ],
)
def test_a_dead_name_is_noticed(text, dead):
    assert dead in list(dead_names(text, ROOT / "README.md"))


@pytest.mark.parametrize(
    "text",
    [
        "`idlm_ds/metrics/judge.py`, tests/contracts/, `ds_configs/zero{1,2,3}.json`.",
        "`engine/role.py` and [link](LICENSE), [web](https://example.org/a.md), [here](#below)",
        "`idlm_ds.metrics.judge.Judge.score`, `idlm_ds.errors`, runs/quickstart/student, data/mine",
    ],
)
def test_names_that_exist_pass(text):
    assert list(dead_names(text, ROOT / "README.md")) == []


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_the_tree_of_a_page_is_the_tree_on_disk(page):
    drawn = tree_of(ROOT / page)
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True
    ).stdout.split()
    top = {f"{name.split('/')[0]}/" for name in tracked if "/" in name} - {".ci/"}
    assert drawn == package_tree() | top


def test_the_readme_is_a_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize(
    ("heading", "most"), [("One training step", 15), ("One evaluation row", 12)]
)
def test_a_reading_path_is_short(heading, most):
    text = (ROOT / "docs" / "architecture.md").read_text()
    section = text.split(f"### {heading}\n")[1].split("\n#")[0]
    files = re.findall(r"^\d+\. `([\w/]+\.py)`", section, flags=re.MULTILINE)
    assert 5 <= len(files) == len(set(files)) <= most
    assert len(files) == len(re.findall(r"^\d+\. ", section, flags=re.MULTILINE))


def test_the_operators_are_listed_with_the_kernels():
    page = (PACKAGE / "kernels" / "README.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert set(listed) == {p.parent.name for p in PACKAGE.glob("kernels/*/reference.py")}
