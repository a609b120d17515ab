"""Servers and clients for the tests of the client."""

from collections.abc import AsyncIterator

import pytest

from roomtape.client import Client, RetrySettings
from tests.client.scripted import Scripted, scripted_server

# Waits that are short enough for tests, and still waits.
QUICK = RetrySettings(attempts=4, initial_seconds=0.001, max_seconds=0.02)


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    async with scripted_server() as scripted:
        yield scripted


@pytest.fixture
async def client(server: Scripted) -> AsyncIterator[Client]:
    async with Client(server.target, retry=QUICK) as client:
        yield client
