"""A host that may not even look at the folder is one that does not see it."""

from pathlib import Path

import pytest
import torch

from idlm_ds.errors import UserError
from idlm_ds.runs import shared_folder
from tests.runs.test_session import Alone


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), OSError(116, "stale handle")])
def test_a_folder_that_cannot_be_searched_is_one_line(error, tmp_path, monkeypatch):
    monkeypatch.setattr(shared_folder, "SEEN_WITHIN_S", 0.1)
    exists = Path.exists

    def denied(path: Path) -> bool:
        if path.name.startswith(".shared-"):
            raise error
        return exists(path)

    monkeypatch.setattr(Path, "exists", denied)
    world = Alone(0, 1, 0, torch.device("cpu"))
    with pytest.raises(UserError, match=f"^--output: rank 0 on .* does not see {tmp_path}"):
        shared_folder.require_shared(tmp_path, world)
    assert list(tmp_path.iterdir()) == []
