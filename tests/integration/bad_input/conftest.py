"""One server for all cases, and a witness for each module."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from grpc import aio

from roomtape.client import Client
from tests.integration.bad_input.witness import Witness
from tests.integration.bad_input.world import World, prepare
from tests.support.server import ServerProcess, running_server


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """The service as processes, with the application `app`."""
    async with running_server(tmp_path_factory.mktemp("bad-input") / "data") as running:
        yield running


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def client(server: ServerProcess) -> AsyncIterator[Client]:
    """For what is not under test."""
    async with Client(server.target) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def world(server: ServerProcess, client: Client) -> AsyncIterator[World]:
    """The server in use. After the module's last case the witness must have everything it published."""
    async with Witness(client) as witness, aio.insecure_channel(server.target) as channel:
        yield await prepare(server, client, channel, witness)
        await witness.goes_on()
        await witness.check()
