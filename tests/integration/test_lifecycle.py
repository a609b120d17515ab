"""Lives of users, rooms and tasks that cross each other, told to the real service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress

import pytest
import pytest_asyncio
from grpc import aio

from roomtape.client import Client, RoomtapeError
from roomtape.v1 import application_pb2, error_pb2, event_pb2, media_pb2, room_pb2, task_pb2
from tests.integration.bad_input.publishing import RawPublish, batch, frames, opening
from tests.support.audio import tone
from tests.support.hearing import assert_heard, hear, select, spoken_by
from tests.support.server import ServerProcess, running_server
from tests.support.stage import OPUS, PCM, Sound, Speaker, Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

MP3, OGG, WAV = media_pb2.CONTAINER_MP3, media_pb2.CONTAINER_OGG, media_pb2.CONTAINER_WAV
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


async def test_a_room_that_closes_takes_its_task_along_state_by_state(client: Client) -> None:
    stage, ada = Stage(client, "closes"), Speaker("ada", 500, PCM)
    await stage.record(SINGLE, singles=[WAV])
    await stage.join(ada)
    await stage.talk(0.3, ada)
    await stage.settle()
    await client.rooms.CloseRoom(room_pb2.CloseRoomRequest(app_id="app", room_id="closes"))
    async with asyncio.timeout(30):
        described = await client.wait_until_complete("app", stage.task_id)
    assert described.task.stop_reason == task_pb2.STOP_REASON_ROOM_CLOSED
    request_filter = event_pb2.EventFilter(task_ids=[stage.task_id])
    state = task_pb2.TASK_STATE_WAITING
    async for event in client.watch_events(
        "app", origin=event_pb2.WATCH_ORIGIN_OLDEST, filter=request_filter
    ):
        if event.type == event_pb2.EVENT_TYPE_TASK_STATE_CHANGED:
            assert event.task.previous_state == state
            state = event.task.task.state
        if event.type == event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE:
            break
    assert state == task_pb2.TASK_STATE_COMPLETED
    with suppress(RoomtapeError):
        await ada.live().close()


async def test_a_user_whom_no_container_holds_is_told_of_once(client: Client) -> None:
    stage, ada, ben = Stage(client, "once"), Speaker("ada", 500, PCM), Speaker("ben", 900)
    await stage.record(SINGLE, singles=[media_pb2.CONTAINER_OGG])
    await stage.join(ada)
    await stage.join(ben)
    await stage.talk(0.3, ben)
    await stage.leave(ben)
    assert {each.user_id for each in await stage.end()} == {"ben"}
    warned = []
    async for event in client.watch_events(
        "app",
        origin=event_pb2.WATCH_ORIGIN_OLDEST,
        filter=event_pb2.EventFilter(task_ids=[stage.task_id]),
    ):
        if event.type == event_pb2.EVENT_TYPE_WARNING:
            warned.append(event.warning.reason)
        if event.type == event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE:
            break
    assert warned == [error_pb2.ERROR_REASON_CODEC_NOT_IN_CONTAINER]


@pytest.mark.parametrize("codecs", [(OPUS, PCM), (PCM, OPUS)], ids=["opus-pcm", "pcm-opus"])
async def test_a_user_who_changes_the_codec_is_written_into_what_holds_it(
    client: Client, codecs: tuple[Sound, Sound]
) -> None:
    first, second = codecs
    stage = Stage(client, f"codec-{first.codec}")
    await stage.record(SINGLE, singles=[OGG, MP3])
    speakers = []
    for sound, hertz in ((first, 500), (second, 900)):
        ada = Speaker("ada", hertz, sound)
        await stage.join(ada)
        await stage.talk(0.5, ada)
        await stage.settle()
        await stage.leave(ada)
        speakers.append(ada)
    segments = await stage.end()
    assert_heard(select(segments, MP3, "ada"), spoken_by(speakers[:1]))
    opus = next(each for each in speakers if each.sound is OPUS)
    assert hear(select(segments, OGG, "ada"), opus.hertz)


async def test_events_say_why_a_user_left(client: Client, channel: aio.Channel) -> None:
    application = application_pb2.Application(app_id="gme", profile=application_pb2.PROFILE_GME)
    await client.applications.CreateApplication(
        application_pb2.CreateApplicationRequest(application=application)
    )
    await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id="gme", room_id="leaving"))
    offer = Speaker("ada", 500, PCM).offer
    async with AsyncExitStack() as stack:

        async def enter(session: str) -> RawPublish:
            publish = await stack.enter_async_context(RawPublish(channel))
            await publish.open(opening("leaving", "ada", [offer], session=session, app_id="gme"))
            return publish

        await enter("1")
        # Of two sessions of a user, a GME room has the newer.
        second = await enter("2")
        await second.close()
        await enter("3")
        await client.rooms.RemoveParticipant(
            room_pb2.RemoveParticipantRequest(app_id="gme", room_id="leaving", user_id="ada")
        )
        await enter("4")
        await client.rooms.CloseRoom(room_pb2.CloseRoomRequest(app_id="gme", room_id="leaving"))
    left = event_pb2.EventFilter(types=[event_pb2.EVENT_TYPE_PARTICIPANT_LEFT])
    assert [event.participant.leave_reason async for event in client.list_events("gme", filter=left)] == [
        event_pb2.LEAVE_REASON_REPLACED,
        event_pb2.LEAVE_REASON_CLOSED,
        event_pb2.LEAVE_REASON_REMOVED,
        event_pb2.LEAVE_REASON_ROOM_CLOSED,
    ]
