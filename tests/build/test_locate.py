"""Names become paths, without a network."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from idlm_ds.build.locate import ASSETS, from_cache, locate, revision_of
from idlm_ds.errors import UserError

COMMIT, OLDER = "c0ffee" + "0" * 34, "0ddba11" + "1" * 33


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, and no way to the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cache(hub: Path, name: str, commit: str, *files: str, branch: str | None = "main") -> Path:
    """What a download of a repository leaves."""
    folder = hub / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in files:
        (snapshot / file).touch()
    if branch is not None:
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / branch).write_text(commit)
    return snapshot


def test_assets_and_paths_are_found_and_others_refused_by_key(tmp_path):
    assert locate("assets:teacher", "teacher.path") == ASSETS / "teacher"
    assert locate(str(tmp_path), "teacher.path") == tmp_path
    with pytest.raises(
        UserError, match=r"^data\.corpus: no such file or folder: assets:sotv \(ass"
    ):
        locate("assets:sotv", "data.corpus")


def test_a_repository_is_read_from_the_cache_and_told_by_its_commit(hub):
    snapshot = cache(hub, "lab/mdlm", COMMIT, "config.json", "model.safetensors")
    path = locate("hf:lab/mdlm", "teacher.path")
    assert path == snapshot
    assert revision_of("hf:lab/mdlm", path) == COMMIT
    assert revision_of("assets:teacher", ASSETS / "teacher") is None


def test_a_branch_or_commit_can_be_asked_for(hub):
    cache(hub, "lab/sdtt", COMMIT, "config.json")
    branch = cache(hub, "lab/sdtt", OLDER, "config.json", branch="teacher_400k")
    assert locate("hf:lab/sdtt@teacher_400k", "teacher.path") == branch
    assert locate(f"hf:lab/sdtt@{OLDER}", "teacher.path") == branch


@pytest.mark.parametrize("spec", ["hf:lab/absent", "hf:lab/mdlm@other"])
def test_what_is_not_cached_is_refused_offline(spec, hub):
    cache(hub, "lab/mdlm", COMMIT, "config.json")
    with pytest.raises(UserError, match=rf"^teacher\.path: {spec} is not in the local cache"):
        locate(spec, "teacher.path")


@pytest.mark.parametrize("spec", ["hf:", "hf:a/b/c", "hf:../../etc"])
def test_nonsense_is_no_repository(spec, hub):
    with pytest.raises(UserError, match=r"^teacher\.path: cannot fetch hf:") as error:
        locate(spec, "teacher.path")
    assert "\n" not in str(error.value)


def test_code_and_weights_that_are_not_wanted_are_not_fetched(hub, monkeypatch):
    requests = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        requests.append((revision, allow_patterns))
        return str(folder)

    folder = cache(hub, "lab/model", COMMIT)
    monkeypatch.setattr("idlm_ds.build.locate.snapshot_download", download)
    locate("hf:lab/model", "data.tokenizer", wants_weights=False)
    assert requests == [(None, ["*.json", "*.txt", "*.model"])]
    locate("hf:lab/model@v1", "teacher.path")
    assert requests[1:] == [
        ("v1", ["*.json", "*.txt", "*.model"]),
        (COMMIT, ["*.safetensors"]),
        (COMMIT, ["pytorch_model.bin"]),
    ]
    (folder / "model.safetensors").touch()
    requests.clear()
    locate("hf:lab/model", "teacher.path")
    assert [patterns for _, patterns in requests[1:]] == [["*.safetensors"]]


def test_what_another_rank_has_fetched_is_taken_from_the_cache(hub, monkeypatch):
    requests = []

    def download(name: str, **options: object) -> str:
        requests.append(options.get("local_files_only", False))
        return str(folder)

    folder = cache(hub, "lab/model", COMMIT, "model.safetensors")
    monkeypatch.setattr("idlm_ds.build.locate.snapshot_download", download)
    for is_cached in (True, False):
        with from_cache(is_cached):
            locate("hf:lab/model", "teacher.path")
    assert requests == [True, True, False, False]
