"""Servers that are started once for all integration tests."""

from collections.abc import Iterator

import pytest

from tests.support.rclone import RcloneServer, rclone_server
from tests.support.stores import BUCKET
from tests.support.weed import WeedServer, weed_server


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeedServer]:
    """SeaweedFS with the bucket `BUCKET`."""
    with weed_server(tmp_path_factory.mktemp("weed"), BUCKET) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RcloneServer]:
    """rclone with the bucket `BUCKET`."""
    with rclone_server(tmp_path_factory.mktemp("rclone"), BUCKET) as server:
        yield server
