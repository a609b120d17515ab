"""One server for all tests of what files hold."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from roomtape.client import Client
from roomtape.v1 import application_pb2
from tests.support.server import ServerProcess, running_server


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """The service as processes, with the applications `app` and `gme`, each of the profile of its name."""
    async with running_server(tmp_path_factory.mktemp("content") / "data") as running:
        async with Client(running.target) as client:
            gme = application_pb2.Application(app_id="gme", profile=application_pb2.PROFILE_GME)
            await client.applications.CreateApplication(
                application_pb2.CreateApplicationRequest(application=gme)
            )
        yield running


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def client(server: ServerProcess) -> AsyncIterator[Client]:
    """A client of it."""
    async with Client(server.target) as client:
        yield client
