"""A cluster to each file of tests, and the small world of the launchers' tests."""

import pytest

from tests.cluster.daemons import (
    cluster_on_one_host,
    cluster_on_two_hosts,
    missing,
    missing_for_hosts,
)
from tests.launchers.conftest import toy

__all__ = ["toy"]


@pytest.fixture(scope="module")
def cluster():
    if reason := missing():
        pytest.skip(reason)
    with cluster_on_one_host() as started:
        yield started


@pytest.fixture(scope="module")
def hosts():
    if reason := missing_for_hosts():
        pytest.skip(reason)
    with cluster_on_two_hosts() as started:
        yield started
