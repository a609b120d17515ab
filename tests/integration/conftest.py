"""Servers that are started once for all integration tests."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.edge import (
    KEY,
    MASTER_KEY,
    Edge,
    serving,
    settings_of,
)
from tests.support.rclone import RcloneServer, rclone_server
from tests.support.stores import BUCKET
from tests.support.uploading import Bench, upload_bench
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


@pytest.fixture
async def bench(tmp_path: Path, rclone: RcloneServer) -> AsyncIterator[Bench]:
    """Uploads to folders, until the test sets other stores."""
    async with upload_bench(tmp_path, rclone.authority) as running:
        yield running


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    """A running edge."""
    async with serving(settings_of(tmp_path)) as running:
        yield running


@pytest.fixture
async def keyed(tmp_path: Path) -> AsyncIterator[Edge]:
    """A running edge that asks for keys: `KEY` reaches the application `one`, `MASTER_KEY` all."""
    keys = [
        {"sha256": hashlib.sha256(KEY.encode()).hexdigest(), "applications": ["one"]},
        {"sha256": hashlib.sha256(MASTER_KEY.encode()).hexdigest(), "applications": ["*"]},
    ]
    async with serving(settings_of(tmp_path, api_keys=keys)) as running:
        yield running
