"""Recipes from files and back: strict YAML, dotted overrides."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from idlm_ds.recipes.errors import RecipeError, shorten
from idlm_ds.recipes.schema import DistillRecipe, PretrainRecipe, Recipe
from idlm_ds.recipes.strict_yaml import read_yaml, write_yaml
from idlm_ds.recipes.typed import build, is_text

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)

RECIPES = Path(__file__).resolve().parents[2] / "ds_configs" / "recipes"
"""Where recipes that go by a bare name live."""

# Recipe class: the section no other kind has, the kind's name, the program that runs it.
_KINDS: dict[type, tuple[str, str, str]] = {
    DistillRecipe: ("teacher", "distillation", "launchers/distill.py"),
    PretrainRecipe: ("model", "pretraining", "launchers/pretrain.py"),
}


def load_recipe(
    cls: type[AnyRecipe],
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    texts: Mapping[str, str] = MappingProxyType({}),
    folder: Path = RECIPES,
) -> AnyRecipe:
    """Read a recipe of kind ``cls``.

    Args:
        cls: ``DistillRecipe`` or ``PretrainRecipe``.
        source: Path of a YAML file, or the bare name of a recipe in ``folder``.
        overrides: ``dotted.key=value`` each; the last of equal keys counts. The value is YAML, but
            for keys that are text: there it is the text as it stands, quoted or not.
        texts: Values of dotted keys that are text, to the letter; they count after ``overrides``.
        folder: Where bare names are looked up.

    Raises:
        RecipeError: The file, an override or what they say together is not such a recipe.
    """
    path = _locate(source, folder)
    label = _label(path)
    raw = read_yaml(_text(path, label), label)
    if not isinstance(raw, dict):
        raise RecipeError(f"{label}: expected a mapping of keys at the top of the file")
    for override in overrides:
        _apply(cls, raw, override)
    for dotted, value in texts.items():
        _set(raw, dotted.split("."), value)
    _refuse_other_kinds(cls, raw, label)
    return build(cls, raw)


def to_yaml(recipe: Recipe) -> str:
    """Write every key of ``recipe``, defaults included, as :func:`load_recipe` reads it."""
    return write_yaml(_plain(asdict(recipe)))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _locate(source: str | Path, folder: Path) -> Path:
    text = str(source)
    is_path = text.endswith((".yaml", ".yml")) or "/" in text
    path = Path(text) if is_path else folder / f"{text}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none"
        missing = _label(path) if is_path else shorten(text)
        raise RecipeError(f"{missing}: no such recipe; known names: {known}")
    return path


def _label(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 90 else "…" + text[-89:]


def _text(path: Path, label: str) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{label}: not UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise RecipeError(f"{label}: cannot be read: {error.strerror}") from error


def _apply(cls: type, raw: dict[str, object], override: str) -> None:
    """Set the key of one ``dotted.key=value``."""
    label = f"override {shorten(override)!r}"
    dotted, equals, text = override.partition("=")
    names = [name.strip() for name in dotted.split(".")]
    if not (equals and all(names)):
        raise RecipeError(f"{label}: expected dotted.key=value")
    value = _unquoted(text) if is_text(cls, names) else read_yaml(text, label)
    if isinstance(value, dict):
        raise RecipeError(f"{label}: a value is a scalar or a list; set the keys one by one")
    _set(raw, names, value)


def _set(raw: dict[str, object], names: Sequence[str], value: object) -> None:
    """Set one key, given as its parts; whether it exists is for ``build`` to say."""
    place: object = raw
    for name in names[:-1]:
        place = place.setdefault(name, {}) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        raise RecipeError(f"{'.'.join(names)}: {'.'.join(names[:-1])} is not a section of keys")
    place[names[-1]] = value


def _unquoted(text: str) -> str:
    """Return text as it was meant: quotes around the whole, as recipes need them, go away."""
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "\"'":
        return text
    try:
        value = read_yaml(text, "")
    except RecipeError:
        return text
    return value if isinstance(value, str) else text


def _refuse_other_kinds(cls: type, raw: Mapping[str, object], label: str) -> None:
    for other, (mark, kind, launcher) in _KINDS.items():
        if other is not cls and mark in raw and _KINDS[cls][0] not in raw:
            raise RecipeError(f"{label}: this is a {kind} recipe (it has {mark!r}); use {launcher}")
