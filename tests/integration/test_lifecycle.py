"""Lives of users, rooms and tasks that cross each other, told to the real service."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from grpc import aio

from roomtape.client import Client
from roomtape.v1 import media_pb2, task_pb2
from tests.integration.bad_input.publishing import RawPublish, batch, frames, opening
from tests.support.audio import tone
from tests.support.hearing import hear, select
from tests.support.server import ServerProcess, running_server
from tests.support.stage import PCM, Speaker, Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAV = media_pb2.CONTAINER_WAV
SINGLE = task_pb2.RECORD_MODE_SINGLE


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """The service as processes."""
    async with running_server(tmp_path_factory.mktemp("lives") / "data") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(server: ServerProcess) -> AsyncIterator[aio.Channel]:
    """A bare channel to it."""
    async with aio.insecure_channel(server.target) as channel:
        yield channel


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server: ServerProcess) -> AsyncIterator[Client]:
    """A client of it."""
    async with Client(server.target) as client:
        yield client


async def test_users_who_chose_the_same_session_id_are_two(client: Client, channel: aio.Channel) -> None:
    stage = Stage(client, "same-session")
    await stage.record(SINGLE, singles=[WAV])
    ada, ben = Speaker("ada", 500, PCM), Speaker("ben", 900, PCM)
    async with RawPublish(channel) as of_ada, RawPublish(channel) as of_ben:
        for speaker, publish in ((ada, of_ada), (ben, of_ben)):
            opened = await publish.open(
                opening("same-session", speaker.user_id, [speaker.offer], session="1")
            )
            assert not opened.resumed
        for speaker, publish in ((ada, of_ada), (ben, of_ben)):
            payloads = PCM.frames(tone(speaker.hertz, 0.5, PCM.rate))
            await publish.send(batch(frames(payloads)))
            await publish.until_acknowledged(len(payloads))
            await publish.close()
    segments = await stage.end()
    assert [each.user_id for each in segments] == ["ada", "ben"]
    for speaker, other in ((ada, ben), (ben, ada)):
        files = select(segments, WAV, speaker.user_id)
        assert hear(files, speaker.hertz)
        assert not hear(files, other.hertz)
