"""Locate models, tokenizers and corpora: paths, assets, repositories of the hub."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from idlm_ds.errors import UserError

ASSETS = Path(__file__).resolve().parents[1] / "assets"
CORPORA = {"sotu": "sotu.jsonl.xz"}

HUB = "hf:"
DESCRIPTIONS = ("*.json", "*.txt", "*.model")
"""Files of a repository other than weights; no code among them."""

WEIGHTS = ("*.safetensors", "pytorch_model.bin")
"""Weight files in order of preference; the first kind that a repository has is fetched."""

_is_cached: ContextVar[bool] = ContextVar("_is_cached", default=False)


def locate(spec: str, key: str, *, wants_weights: bool = True) -> Path:
    """Turn a path, ``assets:NAME`` or ``hf:OWNER/NAME[@REVISION]`` into an existing path.

    Files of the hub are taken from the local cache if they are there, and from nowhere else under
    ``HF_HUB_OFFLINE=1``; ``HF_HOME`` and ``HF_TOKEN`` have their usual meaning. The returned folder
    is named after the commit.

    Args:
        spec: Value that the user gave.
        key: Option or recipe key of the value, for messages.
        wants_weights: Whether to fetch the weights of a repository.

    Raises:
        UserError: No such file, folder or repository exists; names ``key``.
    """
    if spec.startswith(HUB):
        return _fetch(spec, key, wants_weights=wants_weights)
    if not spec.startswith("assets:"):
        path = Path(spec).expanduser()
    else:
        name = spec.removeprefix("assets:")
        path = ASSETS / CORPORA.get(name, name)
    if not path.exists():
        inside = ", ".join(sorted([*CORPORA, *(p.name for p in ASSETS.iterdir() if p.is_dir())]))
        raise UserError(f"{key}: no such file or folder: {spec} (assets: {inside})")
    return path


@contextmanager
def from_cache(is_cached: bool) -> Iterator[None]:
    """Take repositories from the local cache within the block, if another process filled it."""
    before = _is_cached.set(is_cached)
    try:
        yield
    finally:
        _is_cached.reset(before)


def _fetch(spec: str, key: str, *, wants_weights: bool) -> Path:
    name, _, revision = spec.removeprefix(HUB).partition("@")
    try:
        # The small files first: they fix the commit, from which the weights are then taken.
        folder = _snapshot(name, revision or None, DESCRIPTIONS)
        for pattern in WEIGHTS if wants_weights else ():
            _snapshot(name, folder.name, (pattern,))
            if any(folder.glob(pattern)):
                break
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{key}: {spec} is not in the local cache and the hub cannot be reached "
            "(HF_HUB_OFFLINE, HF_HOME and HF_ENDPOINT decide)"
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"{key}: {spec}: the repository has no such revision") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{key}: {spec}: no such repository on the hub, or it needs an account (HF_TOKEN)"
        ) from error
    except (HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{key}: cannot fetch {spec}: {reason[:200]}") from error
    return folder


def _snapshot(name: str, revision: str | None, patterns: Sequence[str]) -> Path:
    fetch = (
        partial(snapshot_download, local_files_only=True) if _is_cached.get() else snapshot_download
    )
    return Path(fetch(name, revision=revision, allow_patterns=list(patterns)))


def revision_of(spec: str, folder: Path) -> str | None:
    """Return the commit of a folder that came from the hub; None for others."""
    return folder.name if spec.startswith(HUB) else None
