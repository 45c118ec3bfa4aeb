"""Whatever would run code is refused by every reader of pickles, and none of it runs."""

import io
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

import idlm_ds
from idlm_ds.checkpoints.formats.public import read_public
from idlm_ds.errors import UnsafeCheckpointError, UserError
from tests.checkpoints import gadgets
from tests.checkpoints.gadgets import SLOT, call, splice, text
from tests.checkpoints.models_on_disk import TOKENIZER
from tests.checkpoints.published import (
    LightningFile,
    dit_table,
    draw,
    hugging_face_config,
    running_mean,
)

ROOT = Path(idlm_ds.__file__).parents[1]


def saved(content: Any) -> bytes:
    target = io.BytesIO()
    torch.save(content, target)
    return target.getvalue()


def in_hyper_parameters(file: LightningFile) -> None:
    file.tokenizer = SLOT


def deep_in_hyper_parameters(file: LightningFile) -> None:
    file.config = {"model": {"n_heads": 3, "more": {"and": {"more": [1, {"x": SLOT}]}}}}


def as_a_weight(file: LightningFile) -> None:
    file.raw["vocab_embed.embedding"] = SLOT  # type: ignore[assignment]


def as_the_name_of_a_weight(file: LightningFile) -> None:
    file.prefix = ""
    file.raw[SLOT] = torch.zeros(1)


def with_more(**more: Any) -> Callable[[LightningFile], None]:
    return lambda file: file.more.update(more)


PLACES: dict[str, Callable[[LightningFile], None]] = {
    "first": with_more(epoch=SLOT),
    "beside": with_more(callbacks={"x": SLOT}),
    "optimizer": with_more(optimizer_states=[SLOT]),
    "decay": with_more(ema=running_mean(draw(dit_table(), 2), decay=SLOT)),
    "mean": with_more(ema=running_mean(draw(dit_table(), 2), shadow_params=[SLOT])),
    "hyper-parameters": in_hyper_parameters,
    "deep": deep_in_hyper_parameters,
    "weight": as_a_weight,
    "name": as_the_name_of_a_weight,
}
"""Where in a Lightning file the slot can be."""


def lightning(place: str | None = None) -> bytes:
    file = LightningFile(config={"model": {"n_heads": 3}})
    if place is not None:
        PLACES[place](file)
    return saved_lightning(file)


def saved_lightning(file: LightningFile) -> bytes:
    target = io.BytesIO()
    file.write(target)
    return target.getvalue()


def sedd(where: str) -> bytes:
    content: dict[str, Any] = {
        "optimizer": None, "model": dict(draw(dit_table(), 1)),
        "ema": running_mean(draw(dit_table(), 2)), "step": 1,
    }  # fmt: skip
    if where == "a weight":
        content["model"]["x"] = SLOT
    else:
        content[where] = SLOT
    return saved(content)


@pytest.fixture(scope="module")
def evil(tmp_path_factory) -> tuple[Path, Path]:
    """A folder of files for every reader of pickles, and the canary they would leave."""
    folder = tmp_path_factory.mktemp("evil")
    canary, files, warm = folder / "canary", folder / "files", folder / "warm"
    files.mkdir()
    warm.mkdir()
    plain = lightning("beside")
    for number, fragment in enumerate((gadgets.live(canary) | gadgets.inert(canary)).values()):
        (files / f"gadget-{number:03}.ckpt").write_bytes(splice(plain, fragment))
    for place in PLACES:
        for kind in ("os.system", "state of a class", "dotted name"):
            content = splice(lightning(place), gadgets.live(canary)[kind])
            (files / f"{place}-{kind.replace(' ', '-')}.ckpt").write_bytes(content)
    for place in ("optimizer", "model", "ema", "step", "a weight"):
        for suffix in (".pth", ".pt"):
            content = splice(sedd(place), gadgets.live(canary)["os.system"])
            (files / f"sedd-{place.replace(' ', '-')}{suffix}").write_bytes(content)
    pickled = saved(dict(draw(dit_table(), 1)) | {"x": SLOT})
    for number, fragment in enumerate(gadgets.live(canary).values()):
        model = files / f"folder-{number}"
        model.mkdir()
        (model / "config.json").write_text(json.dumps(hugging_face_config()))
        (model / "pytorch_model.bin").write_bytes(splice(pickled, fragment))
    good = LightningFile(tokenizer=PreTrainedTokenizerFast.from_pretrained(TOKENIZER))
    (files / "good.ckpt").write_bytes(saved_lightning(good))
    (warm / "good.ckpt").write_bytes(lightning())
    (warm / "bad.ckpt").write_bytes(splice(plain, call("os.system", text("true"))))
    (warm / "good.pth").write_bytes(sedd("step"))
    return folder, canary


def under_audit(folder: Path, *options: str) -> dict[str, Any]:
    program = [sys.executable, "-m", "tests.checkpoints.under_audit", str(folder), *options]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_whatever_would_run_code_is_refused_in_every_reader_and_nothing_runs(evil):
    folder, canary = evil
    result = under_audit(folder)
    assert result["taken"].pop("good.ckpt") == "read"
    assert len(result["taken"]) > 200
    for file, how in result["taken"].items():
        assert how.startswith("UnsafeCheckpointError: "), (file, how)
        assert "nothing in it was executed" in how
        assert "\n" not in how
    assert result["events"] == []
    assert not canary.exists()


def test_loaded_as_usual_a_file_runs_code_and_the_audit_notices(tmp_path: Path):
    canary = tmp_path / "canary"
    for part in ("files", "warm"):
        (tmp_path / part).mkdir()
    fragment = gadgets.live(canary)["builtins.eval"]
    (tmp_path / "files" / "one.pth").write_bytes(splice(sedd("optimizer"), fragment))
    result = under_audit(tmp_path, "--as-usual")
    assert canary.exists()
    assert any(event.startswith("pickle.find_class") for event in result["events"])
    assert any(event.startswith("open") and "canary" in event for event in result["events"])


def test_every_live_gadget_is_one(tmp_path: Path):
    """Or the refusals above would prove little."""
    canary = tmp_path / "canary"
    program = (
        "import sys, pickle\ntry: pickle.loads(sys.stdin.buffer.read())\nexcept Exception: pass\n"
    )
    for kind, fragment in gadgets.live(canary).items():
        protocol = b"\x80\x04" if kind == "dotted name" else b"\x80\x02"
        stream = protocol + fragment + b"."
        subprocess.run([sys.executable, "-S", "-c", program], input=stream, check=True)
        assert canary.exists(), kind
        canary.unlink()


@pytest.mark.parametrize("kind", ["\x80\x04", "cos\nsystem\n(S'true'\ntR.", "(dp0\n.", "(lp0\n."])
def test_a_bare_pickle_is_refused_unread_and_the_way_out_named(kind: str, tmp_path: Path):
    path = tmp_path / "old.ckpt"
    path.write_bytes(kind.encode("latin-1") + bytes(100))
    with pytest.raises(UnsafeCheckpointError, match="save it again"):
        read_public(path)


def test_a_file_from_before_the_zip_format_is_refused(tmp_path: Path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(UnsafeCheckpointError, match="before 1.6"):
        read_public(tmp_path / "old.pt")


def test_a_gadget_never_ends_as_anything_but_an_error(tmp_path: Path):
    """The same files, damaged on top."""
    draws = random.Random(2)
    plain = lightning("beside")
    fragments = list(gadgets.live(tmp_path / "canary").values())
    for number in range(60):
        content = bytearray(splice(plain, draws.choice(fragments)))
        content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        path = tmp_path / f"{number}.ckpt"
        path.write_bytes(content)
        with pytest.raises(UserError):
            read_public(path)
    assert not (tmp_path / "canary").exists()
