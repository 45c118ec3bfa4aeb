import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idlm_ds.data.index import check_hashes, check_sizes, is_prepared, read_index
from idlm_ds.errors import UserError
from tests.data.toy import cases, make

KEY = "data.corpus"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    make(folder, ["abcdefghijklm"] * 20, pack="pad", length=8)
    return folder


@pytest.fixture
def folder(prepared, tmp_path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "copy"))


def verdict(folder: Path) -> str | None:
    """What a run that opens the folder is told."""
    message = None
    try:
        check_hashes(read_index(folder, KEY), folder, KEY)
    except UserError as error:
        message = str(error)
    assert message is None or (message.startswith(f"{KEY}: ") and "\n" not in message)
    return message


def test_what_was_written_is_read_back(folder):
    assert is_prepared(folder)
    index = read_index(folder, KEY)
    assert index.length == 8
    assert index.has_spans
    assert {part.file for part in index.files} >= {"train-00000.bin", "train-00000.spans"}
    assert verdict(folder) is None


@cases(120)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), which=st.integers(0, 99))
def test_no_flipped_bit_goes_unnoticed(prepared, where, bit, which):
    files = sorted(p for p in prepared.iterdir() if p.is_file())
    path = files[which % len(files)]
    original = path.read_bytes()
    spoilt = bytearray(original)
    spoilt[int(where * len(spoilt))] ^= 1 << bit
    path.write_bytes(spoilt)
    try:
        message = verdict(prepared)
        assert message is not None
        assert path.name in message
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize("name", ["train-00000.bin", "train-00000.spans", "token-counts.bin"])
def test_a_file_of_another_size_is_noticed_without_reading(folder, name):
    index = read_index(folder, KEY)
    with (folder / name).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=rf"{name} was altered after preparation: \d+ bytes, \d+"):
        check_sizes(index, folder, KEY)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        check_sizes(index, folder, KEY)


def test_two_shards_that_changed_places_are_noticed(tmp_path):
    make(tmp_path, [c * 15 for c in "abcdefghijklmnopqrstuvwxyz"], ends=False, framed=False)
    first, second = sorted(tmp_path.glob("train-*.bin"))[:2]
    content = first.read_bytes(), second.read_bytes()
    assert len(content[0]) == len(content[1])
    first.write_bytes(content[1])
    second.write_bytes(content[0])
    assert "train-00000.bin was altered after preparation: SHA-256" in str(verdict(tmp_path))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[1]", b"{}", b"\xff", b'{"sha256": 1}', b"[" * 100_000],
)
def test_an_index_that_is_none_is_one_line(folder, content):
    (folder / "index.json").write_bytes(content)
    message = verdict(folder)
    assert message is not None
    assert "index.json" in message


def rewrite(folder: Path, **changes: object) -> None:
    """Change an index the way somebody would who also knows its hash."""
    from idlm_ds.data.index import _digest

    path = folder / "index.json"
    raw = json.loads(path.read_text()) | changes
    raw.pop("sha256")
    path.write_text(json.dumps({**raw, "sha256": _digest(raw)}))


def test_a_name_that_leads_out_of_the_folder_is_refused(folder):
    raw = json.loads((folder / "index.json").read_text())
    raw["counts"]["file"] = "../../secret.bin"
    rewrite(folder, counts=raw["counts"])
    assert "names '../../secret.bin', which is no shard's name" in str(verdict(folder))


@pytest.mark.parametrize(
    "change",
    [
        lambda shard: shard | {"rows": 10**9},
        lambda shard: shard | {"rows": -1},
        lambda shard: shard | {"tokens": shard["tokens"] | {"bytes": 3}},
        lambda shard: shard | {"tokens": shard["spans"], "spans": shard["tokens"]},
        lambda shard: shard | {"tokens": None},
        lambda shard: shard | {"rows": "many"},
        lambda shard: {},
        lambda shard: 5,
    ],
)
def test_numbers_that_cannot_be_are_refused(folder, change):
    splits = json.loads((folder / "index.json").read_text())["splits"]
    splits["train"][0] = change(splits["train"][0])
    rewrite(folder, splits=splits)
    assert "index.json" in str(verdict(folder))


def test_another_format_is_named(folder):
    rewrite(folder, format=2)
    assert "has format 2; this version reads 1" in str(verdict(folder))
