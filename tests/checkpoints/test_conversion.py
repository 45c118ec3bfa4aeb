"""A conversion that goes wrong in any way leaves everything as it was."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from idlm_ds.checkpoints import conversion
from idlm_ds.checkpoints.conversion import ConversionOptions, convert
from idlm_ds.checkpoints.formats import base
from idlm_ds.checkpoints.formats.content import Content
from idlm_ds.checkpoints.formats.public import read_public
from idlm_ds.checkpoints.tensors import NamedTensors
from idlm_ds.errors import UserError
from tests.checkpoints.models_on_disk import (
    TOKENIZER,
    assert_same_bits,
    write_duo_twice_wrapped,
    write_mdlm,
    write_own,
    write_own_with_latent,
    write_sedd,
    write_sedd_training,
)
from tests.checkpoints.published import LENGTH, Weights

EVERY = ("idlm_ds", "hugging_face", "sedd", "sdtt", "lightning", "sedd_training")


class Killed(BaseException):
    """Like a signal: nothing but a ``finally`` sees it."""


def target_of(root: Path, layout: str) -> Path:
    return root / {"lightning": "there.ckpt", "sedd_training": "there.pth"}.get(layout, "there")


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else b""
        for path in root.rglob("*")
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_sedd(tmp_path / "model")[0]


def break_off(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Fail in the middle: after the first file of a folder, in the middle of one file."""

    def write_half(tensors: Weights, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise error

    def save_half(content: object, file: object) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr("idlm_ds.checkpoints.tensors.save_file", write_half)
    monkeypatch.setattr(torch, "save", save_half)


@pytest.mark.parametrize("layout", EVERY)
def test_an_interrupted_write_leaves_nothing(layout: str, source, tmp_path: Path, monkeypatch):
    before = tree(tmp_path)
    break_off(monkeypatch, Killed())
    with pytest.raises(Killed):
        convert(source, target_of(tmp_path, layout), ConversionOptions(layout=layout))
    assert tree(tmp_path) == before


@pytest.mark.parametrize("layout", EVERY)
@pytest.mark.parametrize("moment", ["write", "check", "swap"])
def test_an_interrupted_replacement_leaves_the_old_model(
    layout: str, moment: str, source, tmp_path: Path, monkeypatch
):
    target = target_of(tmp_path, layout)
    convert(source, target, ConversionOptions(layout=layout))
    before = tree(tmp_path)

    def killed(*_: object) -> None:
        raise Killed

    def fails(path: Path, other: Path) -> None:
        if path.parent.suffix == ".partial":
            raise OSError("no")
        os.rename(path, other)

    match moment:
        case "write":
            break_off(monkeypatch, Killed())
        case "check":
            monkeypatch.setattr(conversion, "answers", killed)
        case "swap":
            monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises((Killed, UserError)):
        convert(source, target, ConversionOptions(layout=layout), fresh=True)
    monkeypatch.undo()
    assert tree(tmp_path) == before


def test_what_a_killed_process_left_is_removed_by_the_next(source, tmp_path: Path):
    left = tmp_path / ".there.partial"
    left.mkdir()
    (left / "there").write_bytes(b"half")
    convert(source, tmp_path / "there", ConversionOptions(layout="idlm_ds"))
    assert {path.name for path in tmp_path.iterdir()} == {"model", "there"}


@dataclass
class OneBitOff:
    """Tensors of which one has another last bit in its first number."""

    inner: NamedTensors
    label: str = "one bit off"

    def names(self) -> set[str]:
        return self.inner.names()

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self.inner.shape(name)

    def dtype(self, name: str) -> torch.dtype | None:
        return self.inner.dtype(name)

    def read(self, name: str, shape: tuple[int, ...], start: int, stop: int) -> Tensor:
        values = self.inner.read(name, shape, start, stop).clone()
        if name == "output_layer.linear.bias":
            values.view(torch.int32)[0] ^= 1
        return values


def one_bit_off(content: Content) -> Content:
    return replace(content, weights=OneBitOff(content.weights))


def one_bit_off_in_the_mean(content: Content) -> Content:
    assert content.mean is not None
    return replace(content, mean=OneBitOff(content.mean))


def two_norms_exchanged(content: Content) -> Content:
    tensors = dict(content.weights.tensors)
    one, other = "blocks.0.norm1.weight", "blocks.0.norm2.weight"
    tensors[one], tensors[other] = tensors[other], tensors[one]
    return replace(content, weights=NamedTensors("exchanged", tensors))


def fewer_heads(content: Content) -> Content:
    sizes = {**content.about.sizes, "heads": 1}
    return replace(content, about=replace(content.about, sizes=sizes))


def told_no_time(content: Content) -> Content:
    sizes = {**content.about.sizes, "time_conditioning": False}
    return replace(content, about=replace(content.about, sizes=sizes))


def one_block_less(content: Content) -> Content:
    sizes = {**content.about.sizes, "blocks": 1}
    return replace(content, about=replace(content.about, sizes=sizes))


def write_otherwise(monkeypatch, change: Callable[[Content], Content]) -> None:
    def write(path: Path, layout: str, content: Content, **more: str) -> None:
        base.write_model(path, layout, change(content), **more)

    monkeypatch.setattr(conversion, "write_model", write)


MISTAKES: list[tuple[Callable[[Content], Content], tuple[str, ...], str]] = [
    (one_bit_off, EVERY, "output_layer.linear.bias of its weights differs"),
    (one_bit_off_in_the_mean, ("lightning",), "output_layer.linear.bias of its running mean diff"),
    (two_norms_exchanged, EVERY, r"norm\d\.weight of its weights differs"),
    (fewer_heads, EVERY, "its logits differ by"),
    (told_no_time, ("idlm_ds", "hugging_face", "sdtt", "lightning"), "its logits differ by"),
    (one_block_less, EVERY, "its weights have other names"),
]
CASES = [(change, layout, reason) for change, all_, reason in MISTAKES for layout in all_]


@pytest.mark.parametrize(("change", "layout", "reason"), CASES)
def test_what_is_not_the_same_model_is_removed(
    change, layout: str, reason: str, tmp_path: Path, monkeypatch
):
    write = write_sedd_training if change is one_bit_off_in_the_mean else write_sedd
    source, _ = write(tmp_path / "model")
    before = tree(tmp_path)
    write_otherwise(monkeypatch, change)
    with pytest.raises(UserError, match=f"so removed: .*{reason}") as failed:
        convert(
            source, target_of(tmp_path, layout), ConversionOptions(layout=layout, length=LENGTH)
        )
    assert "\n" not in str(failed.value)
    assert tree(tmp_path) == before


def test_a_tokenizer_comes_along_into_a_folder(tmp_path: Path):
    files = sorted(TOKENIZER.glob("tokenizer*.json"))
    for write in (write_mdlm, write_sedd_training):
        root = tmp_path / write.__name__
        root.mkdir()
        source, _ = write(root / "model")
        beside = source if source.is_dir() else root
        for file in files:
            (beside / file.name).write_bytes(file.read_bytes())
        outcome = convert(source, root / "there", ConversionOptions(layout="hugging_face"))
        assert outcome.copied == tuple(file.name for file in files)
        assert all((root / "there" / f.name).read_bytes() == f.read_bytes() for f in files)


def test_only_a_model_is_replaced_and_only_when_asked(source, tmp_path: Path):
    target, wish = tmp_path / "there", ConversionOptions(layout="idlm_ds")
    convert(write_duo_twice_wrapped(tmp_path / "duo")[0], target, wish)
    (target / "kept.txt").write_text("no part of a model")
    with pytest.raises(UserError, match="already there; --fresh"):
        convert(source, target, wish)
    assert (target / "kept.txt").exists()
    convert(source, target, wish, fresh=True)
    assert read_public(target).about.family == "sedd"
    assert not (target / "kept.txt").exists()

    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="no model, so --fresh does not replace it"):
        convert(source, notes, wish, fresh=True)
    assert (notes / "thesis.tex").exists()


@pytest.mark.parametrize("name", [".", "link"])
def test_a_model_is_replaced_where_it_is(name: str, source, tmp_path: Path, monkeypatch):
    folder, wish = tmp_path / "there", ConversionOptions(layout="idlm_ds")
    convert(write_duo_twice_wrapped(tmp_path / "duo")[0], folder, wish)
    (folder.parent / "link").symlink_to(folder)
    monkeypatch.chdir(folder if name == "." else tmp_path)
    convert(source, Path(name), wish, fresh=True)
    assert read_public(folder).about.family == "sedd"
    assert (tmp_path / "link").is_symlink()


def test_the_source_is_never_replaced(tmp_path: Path):
    source, weights = write_own(tmp_path / "model")
    inner, _ = write_mdlm(source / "inner")
    for part in (source, inner):
        with pytest.raises(UserError, match="holds the source"):
            convert(part, source, ConversionOptions(layout="idlm_ds"), fresh=True)
    assert_same_bits(read_public(source).weights, weights)


@pytest.mark.parametrize(
    ("name", "layout", "reason"),
    [
        ("there", "lightning", "ends in .ckpt, .pt, .pth, .bin"),
        ("there.zip", "sedd_training", "ends in .ckpt, .pt, .pth, .bin"),
        ("model/config.json/there", "idlm_ds", "cannot be written"),
    ],
)
def test_a_target_that_cannot_be_is_one_line(name, layout, reason, source, tmp_path: Path):
    before = tree(tmp_path)
    with pytest.raises(UserError, match=reason) as refused:
        convert(source, tmp_path / name, ConversionOptions(layout=layout))
    assert "\n" not in str(refused.value)
    assert tree(tmp_path) == before


def test_a_full_disk_is_one_line(source, tmp_path: Path, monkeypatch):
    usual = Path.open

    def full(path: Path, mode: str = "r", **more: object) -> object:
        return open("/dev/full", mode) if mode == "wb" else usual(path, mode, **more)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match="No space left on device"):
        convert(source, tmp_path / "there.ckpt", ConversionOptions(layout="lightning"))
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("layout", EVERY)
def test_only_this_packages_folders_hold_a_students_latent(layout: str, tmp_path: Path):
    source, target = write_own_with_latent(tmp_path / "model"), target_of(tmp_path, layout)
    if layout == "idlm_ds":
        outcome = convert(source, target, ConversionOptions(layout=layout))
        assert outcome.lost == ()
        assert outcome.difference == 0
        assert outcome.largest > 0.1
        assert read_public(target).about.latent == 5
        return
    with pytest.raises(UserError, match=f"^--to {layout}: programs .* this student's latent"):
        convert(source, target, ConversionOptions(layout=layout))
    assert not target.exists()
