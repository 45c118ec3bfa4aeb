import pytest

from idlm_ds.data.prepare import preparation


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    """Few documents fill a group, so that small corpora have many shards."""
    monkeypatch.setattr(preparation, "GROUP_DOCUMENTS", 3)
