"""Users who publish twice, who are taken out, who vanish: what others and their own recording notice of it."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from roomtape.v1 import event_pb2, ingest_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from tests.integration.bad_input.cases import covers
from tests.integration.bad_input.content import noise_frame, samples_of, without_silence
from tests.integration.bad_input.publishing import RawPublish, batch, frames, opening
from tests.integration.bad_input.recorded import until_files
from tests.integration.bad_input.refusals import Expected
from tests.integration.bad_input.witness import START_NS, offer_of, path_of, record
from tests.integration.bad_input.world import World
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="package")

OFFERS = [offer_of(media_pb2.CODEC_PCM_S16LE)]
FRAMES = 5
PUBLISH = "IngestService.Publish"
MEDIA, LIVE = room_pb2.ROOM_CLOCK_MEDIA, room_pb2.ROOM_CLOCK_ARRIVAL


def noise(seed: int, count: int = FRAMES) -> list[bytes]:
    randomness = np.random.default_rng(seed)
    return [noise_frame(randomness) for _ in range(count)]


def joined(files: Sequence[segment_pb2.Segment]) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
    """What is heard in the files."""
    ordered = sorted(files, key=lambda file: file.segment_id)
    return without_silence(np.concatenate([samples_of(path_of(file)) for file in ordered]))


def published(payloads: Sequence[bytes]) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
    return np.frombuffer(b"".join(payloads), "<i2")


@asynccontextmanager
async def recorded_room(world: World, app_id: str, room_id: str) -> AsyncIterator[str]:
    """A room on a MEDIA clock that is recorded while the block runs; its task's id."""
    task_id = await record(world.client, room_id, MEDIA, [media_pb2.CONTAINER_WAV], app_id=app_id)
    yield task_id
    await world.client.rooms.CloseRoom(room_pb2.CloseRoomRequest(app_id=app_id, room_id=room_id))
    await world.client.wait_until_complete(app_id, task_id)


@covers(PUBLISH, "PUBLISH_REPLACED")
@pytest.mark.parametrize("app_id", ["app", "gme"])
async def test_the_same_session_goes_on_over_its_newest_connection(world: World, app_id: str) -> None:
    sound = noise(1, 2 * FRAMES)
    async with recorded_room(world, app_id, "twice") as task_id:
        request = opening("twice", "ada", OFFERS, app_id=app_id)
        async with RawPublish(world.channel) as first, RawPublish(world.channel) as second:
            await first.open(request)
            await first.send(batch(frames(sound[:FRAMES]), sent_ns=START_NS))
            await first.until_acknowledged(FRAMES)
            growing = segment_pb2.SEGMENT_STATE_RECORDING
            await until_files(world.client, task_id, "ada", growing, app_id=app_id)
            async with world.unchanged():
                opened = await second.open(request)
                refused = await first.refusal()
            assert opened.resumed
            assert [each.sequence for each in opened.acknowledgements] == [FRAMES]
            session = {"userId": "ada", "publishSessionId": request.publish_session_id}
            Expected("PUBLISH_REPLACED", metadata=session).check(refused)
            await second.send(batch(frames(sound[FRAMES:], FRAMES + 1), sent_ns=START_NS))
            await second.close()
        uploaded = segment_pb2.SEGMENT_STATE_UPLOADED
        files = await until_files(world.client, task_id, "ada", uploaded, app_id=app_id)
        np.testing.assert_array_equal(joined(files), published(sound))


@covers(PUBLISH, "ALREADY_PUBLISHING")
async def test_another_session_of_a_user_is_refused_and_the_first_goes_on(world: World) -> None:
    sound = noise(2, 2 * FRAMES)
    async with recorded_room(world, "app", "first-stays") as task_id:
        async with RawPublish(world.channel) as first, RawPublish(world.channel) as second:
            await first.open(opening("first-stays", "ada", OFFERS, session="one"))
            await first.send(batch(frames(sound[:FRAMES]), sent_ns=START_NS))
            await first.until_acknowledged(FRAMES)
            await until_files(world.client, task_id, "ada", segment_pb2.SEGMENT_STATE_RECORDING)
            async with world.unchanged():
                await second.send(
                    ingest_pb2.PublishRequest(open=opening("first-stays", "ada", OFFERS, session="two"))
                )
                refused = await second.refusal()
            session = {"userId": "ada", "publishSessionId": "one"}
            Expected("ALREADY_PUBLISHING", metadata=session).check(refused)
            await first.send(batch(frames(sound[FRAMES:], FRAMES + 1), sent_ns=START_NS))
            await first.close()
        files = await until_files(world.client, task_id, "ada", segment_pb2.SEGMENT_STATE_UPLOADED)
        np.testing.assert_array_equal(joined(files), published(sound))


@covers(PUBLISH, "PUBLISH_REPLACED")
async def test_another_session_of_a_user_takes_over_by_the_rules_of_gme(world: World) -> None:
    sounds = [noise(3), noise(4)]
    async with recorded_room(world, "gme", "newest-wins") as task_id:
        async with RawPublish(world.channel) as first, RawPublish(world.channel) as second:
            await first.open(opening("newest-wins", "ada", OFFERS, app_id="gme", session="one"))
            await first.send(batch(frames(sounds[0]), sent_ns=START_NS))
            await first.until_acknowledged(FRAMES)
            opened = await second.open(opening("newest-wins", "ada", OFFERS, app_id="gme", session="two"))
            refused = await first.refusal()
            assert not opened.resumed
            session = {"userId": "ada", "publishSessionId": "one"}
            Expected("PUBLISH_REPLACED", metadata=session).check(refused)
            later = frames(sounds[1])
            for frame in later:
                frame.capture_time.seconds += 1
            await second.send(batch(later, sent_ns=START_NS))
            await second.close()
        uploaded = segment_pb2.SEGMENT_STATE_UPLOADED
        files = await until_files(world.client, task_id, "ada", uploaded, count=2, app_id="gme")
        np.testing.assert_array_equal(joined(files), published(sounds[0] + sounds[1]))


@covers(PUBLISH, "PARTICIPANT_REMOVED")
async def test_who_is_removed_is_told_so_and_what_they_sent_is_kept(world: World) -> None:
    sound = noise(5)
    async with recorded_room(world, "app", "removal") as task_id, RawPublish(world.channel) as stream:
        await stream.open(opening("removal", "ada", OFFERS))
        await stream.send(batch(frames(sound), sent_ns=START_NS))
        await stream.until_acknowledged(FRAMES)
        await world.client.rooms.RemoveParticipant(
            room_pb2.RemoveParticipantRequest(app_id="app", room_id="removal", user_id="ada")
        )
        Expected("PARTICIPANT_REMOVED", metadata={"userId": "ada"}).check(await stream.refusal())
        files = await until_files(world.client, task_id, "ada", segment_pb2.SEGMENT_STATE_UPLOADED)
        np.testing.assert_array_equal(joined(files), published(sound))


@covers(PUBLISH, "ROOM_CLOSED", "ROOM_NOT_FOUND")
async def test_a_closed_room_is_told_to_who_is_in_it_and_opens_for_nobody(world: World) -> None:
    sound = noise(6)
    task_id = await record(world.client, "closing", MEDIA, [media_pb2.CONTAINER_WAV])
    request = opening("closing", "ada", OFFERS)
    async with RawPublish(world.channel) as stream:
        await stream.open(request)
        await stream.send(batch(frames(sound), sent_ns=START_NS))
        await stream.until_acknowledged(FRAMES)
        await world.client.rooms.CloseRoom(room_pb2.CloseRoomRequest(app_id="app", room_id="closing"))
        Expected("ROOM_CLOSED", metadata={"roomId": "closing"}).check(await stream.refusal())
    async with RawPublish(world.channel) as stream:
        await stream.send(ingest_pb2.PublishRequest(open=request))
        Expected("ROOM_NOT_FOUND").check(await stream.refusal())
    described = await world.client.wait_until_complete("app", task_id)
    assert described.task.stop_reason == task_pb2.STOP_REASON_ROOM_CLOSED
    np.testing.assert_array_equal(joined(described.segments), published(sound))


async def test_a_publisher_who_vanishes_leaves_a_whole_file_behind(world: World, tmp_path: Path) -> None:
    client = world.client
    task_id = await record(client, "vanishing", LIVE, [media_pb2.CONTAINER_WAV], app_id="gme")
    command = [
        "-m",
        "tests.support.lone_publisher",
        world.server.target,
        "gme",
        "vanishing",
        "ada",
        str(tmp_path),
        "7",
    ]
    publisher = await asyncio.create_subprocess_exec(sys.executable, *command)
    try:
        await eventually(lambda: acknowledged(tmp_path) > 10 * FRAMES, "the publisher is recorded")
    finally:
        publisher.kill()
        await publisher.wait()

    async def is_gone() -> bool:
        described = await client.rooms.DescribeRoom(
            room_pb2.DescribeRoomRequest(app_id="gme", room_id="vanishing")
        )
        [participant] = described.room.participants
        return not participant.connected

    await eventually(is_gone, "the publisher is seen to be gone")
    # By the rules of gme a break ends the segment; the user stays for as long as they may come back.
    uploaded = segment_pb2.SEGMENT_STATE_UPLOADED
    files = await until_files(client, task_id, "ada", uploaded, app_id="gme")
    recorded = joined(files)
    sent = without_silence(np.frombuffer((tmp_path / "frames.pcm").read_bytes(), "<i2"))
    np.testing.assert_array_equal(recorded, sent[: len(recorded)])
    assert files[0].statistics.recorded >= acknowledged(tmp_path)
    await client.rooms.CloseRoom(room_pb2.CloseRoomRequest(app_id="gme", room_id="vanishing"))
    described = await client.wait_until_complete("gme", task_id)
    assert len(described.segments) == 1


def acknowledged(folder: Path) -> int:
    try:
        return int((folder / "acknowledged").read_text())
    except FileNotFoundError:
        return 0


async def test_who_is_gone_may_come_back_with_another_session(world: World) -> None:
    sounds = [noise(8), noise(9)]
    async with recorded_room(world, "app", "coming-back") as task_id:
        async with RawPublish(world.channel) as first:
            await first.open(opening("coming-back", "ada", OFFERS, session="one"))
            await first.send(batch(frames(sounds[0]), sent_ns=START_NS))
            await first.until_acknowledged(FRAMES)

        async def opens() -> bool:
            room = await world.client.rooms.DescribeRoom(
                room_pb2.DescribeRoomRequest(app_id="app", room_id="coming-back")
            )
            return not room.room.participants[0].connected

        await eventually(opens, "the first connection is seen to be gone")
        async with RawPublish(world.channel) as second:
            opened = await second.open(opening("coming-back", "ada", OFFERS, session="two"))
            assert not opened.resumed
            later = frames(sounds[1])
            for frame in later:
                frame.capture_time.seconds += 1
            await second.send(batch(later, sent_ns=START_NS))
            await second.close()
        uploaded = segment_pb2.SEGMENT_STATE_UPLOADED
        files = await until_files(world.client, task_id, "ada", uploaded, count=2)
        np.testing.assert_array_equal(joined(files), published(sounds[0] + sounds[1]))
    left = [event async for event in events_of(world, "app", "coming-back")]
    joins = [
        event.participant.publish_session_id
        for event in left
        if event.type == event_pb2.EVENT_TYPE_PARTICIPANT_JOINED
    ]
    leaves = [
        event.participant.publish_session_id
        for event in left
        if event.type == event_pb2.EVENT_TYPE_PARTICIPANT_LEFT
    ]
    assert (joins, leaves) == (["one", "two"], ["one", "two"])


async def events_of(world: World, app_id: str, room_id: str) -> AsyncIterator[event_pb2.Event]:
    """The events of a room that is closed, to its end."""
    wanted = event_pb2.EventFilter(room_ids=[room_id])
    watch = world.client.watch_events(app_id, origin=event_pb2.WATCH_ORIGIN_OLDEST, filter=wanted)
    async with watch:
        async for event in watch:
            yield event
            if event.type == event_pb2.EVENT_TYPE_ROOM_CLOSED:
                return
