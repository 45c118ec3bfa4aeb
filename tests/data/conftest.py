import pytest

from idlm_ds.data import prepare


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    """Few documents fill a group, so that small corpora have many shards."""
    monkeypatch.setattr(prepare, "GROUP_DOCUMENTS", 3)
