"""Every field of DeepSpeed's schema works, is the recipe's, or is refused with a reason."""

import re
from pathlib import Path

import idlm_ds
from idlm_ds.engine.json_fields import FIELDS, SECTIONS
from idlm_ds.engine.json_values import Ours, Rejected, Works
from idlm_ds.recipes.schema import DistillRecipe, PretrainRecipe

from .schema import schema

PAGE = Path(idlm_ds.__file__).parents[1] / "docs" / "deepspeed_json.md"
STATES = {Works: "works", Ours: "recipe", Rejected: "refused"}


def has_row(field: str) -> bool:
    """A row of its own, a section with rows, or a row of a section that is around it."""
    parts = field.split(".")
    around = [".".join(parts[:i]) for i in range(1, len(parts) + 1)]
    return field in SECTIONS or any(name in FIELDS for name in around)


def test_every_field_of_the_installed_deepspeed_has_a_row():
    fields = schema()
    assert len(fields) > 150
    assert sorted(name for name in fields if not has_row(name)) == []


def test_every_row_is_a_field_of_the_installed_deepspeed():
    assert sorted(FIELDS.keys() - schema()) == []


def test_a_new_field_would_be_noticed():
    assert not has_row("zero_optimization.stage4_bucket_size")
    assert not has_row("train_faster")
    assert has_row("tensor_parallel.autotp_size")


def test_reasons_and_descriptions_fit_a_line():
    for name, row in FIELDS.items():
        text = {Works: "does", Ours: "key", Rejected: "reason"}[type(row)]
        words = getattr(row, text)
        assert re.fullmatch(r"[ -~]{4,90}", words), (name, words)
        assert not words.endswith("."), name


def test_the_keys_that_decide_are_keys_of_recipes():
    for name, row in FIELDS.items():
        if isinstance(row, Ours):
            for key in re.findall(r"[a-z_]+\.[a-z_*]+", row.key):
                section, field = key.split(".")
                recipes = (DistillRecipe, PretrainRecipe)
                types = [r.__dataclass_fields__[section].type for r in recipes]
                assert all(
                    field == "*" or field in t.__dataclass_fields__  # type: ignore[union-attr]
                    for t in types
                ), name


def rendered() -> str:
    """The table as the documentation has it."""
    lines = ["| field | | what it does, who decides, or why not |", "|---|---|---|"]
    for name, row in FIELDS.items():
        match row:
            case Works(value, does, stages):
                at = "" if len(stages) == 3 else f"; stage {' and '.join(map(str, stages))} only"
                words = f"{does} ({value.rule}{at})"
            case Ours(key, may_repeat):
                keys = " and ".join(f"`{k}`" for k in key.split(" and "))
                words = f"{keys}; may be repeated" if may_repeat else keys
            case Rejected(reason):
                words = reason
        lines.append(f"| `{name}` | {STATES[type(row)]} | {words} |")
    return "\n".join(lines)


def test_the_documentation_shows_the_table():
    """``python -m tests.engine.test_json_fields`` prints what belongs there."""
    assert rendered() in PAGE.read_text()


if __name__ == "__main__":
    print(rendered())
