import pytest

from tests.export.isolated import Seen, run_exports


@pytest.fixture(scope="session")
def seen(tmp_path_factory) -> Seen:
    """What the other process saw."""
    return run_exports(tmp_path_factory.mktemp("exports"))
