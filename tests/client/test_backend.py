"""A backend that decides by events when to record: it needs no other call to know the rooms."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import psutil
import pytest
import pytest_asyncio

from roomtape.client import Client, EventList, NotFound, RetrySettings, Snapshot, SyncClient
from roomtape.v1 import event_pb2, ingest_pb2, media_pb2, room_pb2, task_pb2
from tests.support.server import ServerProcess, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

SNAPSHOT = event_pb2.WATCH_ORIGIN_SNAPSHOT
SOON = RetrySettings(attempts=50, max_seconds=0.5)
MIC = ingest_pb2.TrackOffer(
    track_id="mic", codec=media_pb2.CODEC_PCM_S16LE, sample_rate_hz=48_000, channels=1
)
SCREEN = ingest_pb2.TrackOffer(
    track_id="screen",
    source=media_pb2.TRACK_SOURCE_AUX,
    codec=media_pb2.CODEC_PCM_S16LE,
    sample_rate_hz=48_000,
    channels=1,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    async with running_server(tmp_path_factory.mktemp("backend") / "data") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(server: ServerProcess) -> AsyncIterator[Client]:
    async with Client(server.target, retry=SOON) as client:
        yield client


@dataclass
class Backend:
    """Rooms with users and their tracks (source, muted), by a snapshot and events alone."""

    rooms: dict[str, dict[str, dict[str, tuple[int, bool]]]] = field(default_factory=dict)

    def begin(self, snapshot: Snapshot) -> None:
        for room in snapshot.rooms:
            self.rooms[room.room_id] = {}
        for each in snapshot.participants:
            self.rooms[each.room_id][each.participant.user_id] = {
                track.track_id: (track.source, track.muted) for track in each.participant.tracks
            }

    def take(self, event: event_pb2.Event) -> None:
        detail = event.participant
        match event.type:
            case event_pb2.EVENT_TYPE_ROOM_CREATED:
                self.rooms[event.room_id] = {}
            case event_pb2.EVENT_TYPE_ROOM_CLOSED:
                del self.rooms[event.room_id]
            case event_pb2.EVENT_TYPE_PARTICIPANT_JOINED:
                self.rooms[event.room_id][detail.user_id] = {}
            case event_pb2.EVENT_TYPE_PARTICIPANT_LEFT:
                assert self.rooms[event.room_id].pop(detail.user_id) == {}
            case event_pb2.EVENT_TYPE_TRACK_STOPPED:
                del self.rooms[event.room_id][detail.user_id][detail.track.track_id]
            case (
                event_pb2.EVENT_TYPE_TRACK_STARTED
                | event_pb2.EVENT_TYPE_TRACK_MUTED
                | event_pb2.EVENT_TYPE_TRACK_UNMUTED
            ):
                tracks = self.rooms[event.room_id][detail.user_id]
                tracks[detail.track.track_id] = (detail.track.source, detail.track.muted)
        if event.HasField("participant"):
            self._check_counts(event)

    def _check_counts(self, event: event_pb2.Event) -> None:
        """What the event says of the room is what its reader counts."""
        users = self.rooms[event.room_id]
        tracks = [track for each in users.values() for track in each.values()]
        detail = event.participant
        assert detail.participant_count == len(users)
        assert detail.track_count == len(tracks)
        assert detail.muted_track_count == sum(muted for _, muted in tracks)


async def of_server(client: Client) -> dict[str, dict[str, dict[str, tuple[int, bool]]]]:
    """The same as the server says."""
    rooms: dict[str, dict[str, dict[str, tuple[int, bool]]]] = {}
    async for room in client.list_rooms(room_pb2.ListRoomsRequest(app_id="app")):
        described = await client.rooms.DescribeRoom(
            room_pb2.DescribeRoomRequest(app_id="app", room_id=room.room_id)
        )
        rooms[room.room_id] = {
            who.user_id: {track.track_id: (track.source, track.muted) for track in who.tracks}
            for who in described.room.participants
        }
    return rooms


async def open_room(client: Client, room_id: str) -> None:
    await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id="app", room_id=room_id))


async def set_muted(client: Client, room_id: str, user_id: str, track_id: str, muted: bool) -> None:
    await client.rooms.SetTrackMuted(
        room_pb2.SetTrackMutedRequest(
            app_id="app", room_id=room_id, user_id=user_id, track_id=track_id, muted=muted
        )
    )


async def test_a_backend_knows_the_rooms_by_a_snapshot_and_events(
    server: ServerProcess, client: Client
) -> None:
    backend = Backend()
    await open_room(client, "before")
    zoe = client.publisher("app", "before", "zoe", [MIC, SCREEN])
    await zoe.open()
    await set_muted(client, "before", "zoe", "mic", True)
    async with client.watch_events("app", origin=SNAPSHOT) as watch:
        snapshot = await watch.snapshot()
        assert snapshot is not None
        backend.begin(snapshot)
        assert backend.rooms == await of_server(client)
        assert backend.rooms["before"]["zoe"]["screen"] == (media_pb2.TRACK_SOURCE_AUX, False)
        assert await asyncio.to_thread(snapshot_by_threads, server.target) == snapshot

        await open_room(client, "room")
        async with client.publisher("app", "room", "ada", [MIC, SCREEN]) as ada:
            await ada.publish("mic", bytes(1920))
            async with client.publisher("app", "room", "ben", [MIC]) as ben:
                await ben.publish("mic", bytes(1920))
                await set_muted(client, "room", "ben", "mic", True)
                await set_muted(client, "room", "ada", "", True)
                await set_muted(client, "room", "ada", "mic", False)
                node = server.node()
                assert isinstance(node, psutil.Process)
                node.kill()
                await set_muted(client, "room", "ben", "mic", False)
        await zoe.close()
        await client.rooms.CloseRoom(room_pb2.CloseRoomRequest(app_id="app", room_id="before"))
        await open_room(client, "last")
        async for event in watch:
            backend.take(event)
            if event.type == event_pb2.EVENT_TYPE_ROOM_CREATED and event.room_id == "last":
                break
        assert backend.rooms == await of_server(client) == {"room": {}, "last": {}}
        assert watch.statistics().resumes >= 1
        token = watch.resume_token
    async with client.watch_events("app", after=token) as later:
        await open_room(client, "later")
        assert (await anext(later)).room_id == "later"
        assert await later.snapshot() is None


def snapshot_by_threads(target: str) -> Snapshot | None:
    with SyncClient(target) as client, client.watch_events("app", origin=SNAPSHOT) as watch:
        return watch.snapshot()


async def test_labels_choose_the_events_of_tasks_streamed_and_listed(
    server: ServerProcess, client: Client
) -> None:
    wanted = event_pb2.EventFilter(labels={"course": "maths"})
    tasks = {}
    async with client.watch_events("app", filter=wanted) as watch:
        await watch.start()
        for room_id, labels in (("maths", {"course": "maths"}), ("physics", {"course": "physics"})):
            await open_room(client, room_id)
            reply = await client.recording.StartRecord(
                task_pb2.StartRecordRequest(
                    app_id="app", room_id=room_id, mode=task_pb2.RECORD_MODE_SINGLE, labels=labels
                )
            )
            tasks[room_id] = reply.task.task_id
        following = asyncio.create_task(follow(client.list_events("app", filter=wanted, follow=True)))
        assert await server.stop() == 0
        await server.start()
        for task_id in tasks.values():
            await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id="app", task_id=task_id))
        streamed = []
        async for event in watch:
            streamed.append(event)
            if event.type == event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE:
                break
    assert {event.task_id for event in streamed} == {tasks["maths"]}
    assert all(event.labels == {"course": "maths"} for event in streamed)
    assert [event.task_sequence for event in streamed] == list(range(1, len(streamed) + 1))
    assert await following == streamed
    listed = client.list_events("app", filter=wanted)
    assert [event async for event in listed] == streamed
    of_task = event_pb2.EventFilter(task_ids=[tasks["maths"]])
    assert [event async for event in client.list_events("app", filter=of_task, follow=True)] == streamed
    with SyncClient(server.target) as sync_client:
        by_threads = sync_client.list_events("app", filter=of_task, follow=True)
        assert await asyncio.to_thread(list, by_threads) == streamed
        assert by_threads.resume_token
    assert listed.resume_token is not None
    with pytest.raises(NotFound):
        await anext(client.list_events("nobody"))


async def follow(events: EventList) -> list[event_pb2.Event]:
    seen = []
    async for event in events:
        seen.append(event)
        if event.type == event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE:
            break
    return seen
