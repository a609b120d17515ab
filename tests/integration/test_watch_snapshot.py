"""WatchEvents from a SNAPSHOT: the state as it is, then what happens from there on, without a hole or a double."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeAlias

import grpc
import pytest
from grpc import aio
from sqlalchemy import insert, update

from roomtape.v1 import event_pb2, event_pb2_grpc, media_pb2, room_pb2, segment_pb2, task_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.database import Database, UnitOfWork
from roomtape_service.database import participants as participant_rows
from roomtape_service.database import recordings as recording_rows
from roomtape_service.database import rooms as room_rows
from roomtape_service.database.participants import ParticipantRow
from roomtape_service.database.recordings import RecordingRow
from roomtape_service.database.rooms import RoomRow
from roomtape_service.database.tables import segments, task_labels, tasks
from roomtape_service.events import token
from roomtape_service.events.build import room_event
from roomtape_service.events.filter import EventFilter
from roomtape_service.rpc.watch_snapshot import Snapshots
from tests.support.databases import APP, ROOM, add_application, add_tasks, warning
from tests.support.watching import WatchServer, refusal, serving

Request = event_pb2.WatchEventsRequest
Response = event_pb2.WatchEventsResponse
Filter = event_pb2.EventFilter
Call: TypeAlias = "aio.UnaryStreamCall[Request, Response]"

SNAPSHOT = event_pb2.WATCH_ORIGIN_SNAPSHOT
STARTED = event_pb2.BOOKMARK_REASON_STARTED
SNAPSHOT_END = event_pb2.BOOKMARK_REASON_SNAPSHOT_END
DRAINING = event_pb2.BOOKMARK_REASON_DRAINING


class Watching:
    """A server and a stub."""

    def __init__(self, server: WatchServer, stub: "event_pb2_grpc.WatchServiceAsyncStub") -> None:
        self.server = server
        self.stub = stub

    def watch(self, wanted: Filter | None = None) -> Call:
        return self.stub.WatchEvents(Request(app_id=APP, origin=SNAPSHOT, filter=wanted))

    def resume(self, resume_token: str) -> Call:
        return self.stub.WatchEvents(Request(app_id=APP, resume_token=resume_token))


@asynccontextmanager
async def watching(database: Database, folder: Path) -> AsyncIterator[Watching]:
    async with serving(database, folder, tail_events=64) as server, server.stub() as stub:
        yield Watching(server, stub)


async def read(call: Call) -> Response:
    message = await call.read()
    assert isinstance(message, Response)
    return message


async def snapshot_of(call: Call) -> tuple[list[event_pb2.SnapshotItem], Response]:
    """The items, and the SNAPSHOT_END after them."""
    started = await read(call)
    assert (started.bookmark.reason, started.bookmark.sequence) == (STARTED, 0)
    items: list[event_pb2.SnapshotItem] = []
    while True:
        message = await read(call)
        if message.HasField("bookmark"):
            assert message.bookmark.reason == SNAPSHOT_END
            return items, message
        assert message.resume_token == started.resume_token
        items.append(message.snapshot)


def names_of(items: Iterable[event_pb2.SnapshotItem]) -> list[str]:
    names = []
    for item in items:
        match item.WhichOneof("item"):
            case "room":
                names.append(item.room.room_id)
            case "participant":
                names.append(f"{item.participant.room_id}/{item.participant.participant.user_id}")
            case "task":
                names.append(item.task.task_id)
            case "recording":
                names.append(item.recording.recording_id)
            case "segment":
                names.append(item.segment.file_id)
    return names


async def change_rooms(database: Database, room_ids: Sequence[str], random: Random) -> None:
    """Opens and closes these rooms again and again, each change with its event."""
    keys: dict[str, str] = {}
    for turn in range(30):
        room_id = random.choice(room_ids)

        async def work(uow: UnitOfWork, room_id: str = room_id, turn: int = turn) -> str:
            room = room_pb2.Room(app_id=APP, room_id=room_id)
            if room_id in keys:
                await room_rows.close_room(uow.connection, keys[room_id], uow.now_ns)
                await uow.append(room_event(event_pb2.EVENT_TYPE_ROOM_CLOSED, room))
                return ""
            key = f"{room_id}/{turn}"
            row = RoomRow(key, APP, room_id, room_pb2.ROOM_CLOCK_ARRIVAL, 0, uow.now_ns)
            await room_rows.insert_room(uow.connection, row)
            await uow.append(room_event(event_pb2.EVENT_TYPE_ROOM_CREATED, room))
            return key

        if key := await database.write(work):
            keys[room_id] = key
        else:
            del keys[room_id]


async def test_a_snapshot_goes_over_into_events_without_a_hole_or_a_double(
    database: Database, tmp_path: Path
) -> None:
    random = Random(3)
    last = "last"

    async def follow(w: Watching, begun: asyncio.Event) -> set[str]:
        """The open rooms, by one watcher's stream alone."""
        call = w.watch()
        items, end = await snapshot_of(call)
        begun.set()
        present = {item.room.room_id for item in items}
        sequence = end.bookmark.sequence
        while True:
            event = (await read(call)).event
            assert event.sequence == sequence + 1
            sequence = event.sequence
            if event.room_id == last:
                call.cancel()
                return present
            if event.type == event_pb2.EVENT_TYPE_ROOM_CREATED:
                assert event.room_id not in present
                present.add(event.room_id)
            else:
                present.remove(event.room_id)

    async with watching(database, tmp_path) as w:
        changing = [
            asyncio.ensure_future(
                change_rooms(database, [f"{number}-{each}" for each in range(3)], Random(number))
            )
            for number in range(4)
        ]
        followers: dict[asyncio.Event, asyncio.Task[set[str]]] = {}
        while not all(each.done() for each in changing):
            begun = asyncio.Event()
            followers[begun] = asyncio.create_task(follow(w, begun))
            await w.stub.ListEvents(
                event_pb2.ListEventsRequest(app_id=APP, origin=event_pb2.WATCH_ORIGIN_NOW)
            )
            if random.random() < 0.5:
                await asyncio.wait(changing, timeout=0.01)
        await asyncio.gather(*changing, *(each.wait() for each in followers))
        await database.write(
            lambda uow: uow.append(
                event_pb2.Event(type=event_pb2.EVENT_TYPE_ROOM_CREATED, app_id=APP, room_id=last)
            )
        )
        seen = await asyncio.gather(*followers.values())
        items, _ = await snapshot_of(w.watch())
        now = {item.room.room_id for item in items}
        assert len(followers) > 5
        assert all(each == now for each in seen)


async def fill(database: Database) -> None:
    """Two rooms with people, tasks in every state, their recordings and segments."""
    await add_tasks(database, ["1"], state=task_pb2.TASK_STATE_RECORDING)
    await add_tasks(database, ["2"], state=task_pb2.TASK_STATE_FINALIZING)
    await add_tasks(database, ["3"], state=task_pb2.TASK_STATE_COMPLETED)

    async def work(uow: UnitOfWork) -> None:
        connection = uow.connection
        await room_rows.insert_room(connection, RoomRow("other-key", APP, "other", 1, 0, 7))
        await room_rows.insert_room(connection, RoomRow("gone-key", APP, "gone", 1, 0, 7))
        track = room_pb2.Track(track_id="mic", source=media_pb2.TRACK_SOURCE_MAIN, muted=True)
        for number, (key, room_id, user_id) in enumerate(
            ((f"{APP}/{ROOM}", ROOM, "ada"), (f"{APP}/{ROOM}", ROOM, "ben"), ("gone-key", "gone", "cleo"))
        ):
            tracks = room_pb2.Participant(tracks=[track]).SerializeToString()
            row = ParticipantRow(f"p{number}", key, APP, room_id, user_id, "session", tracks, number)
            await participant_rows.insert_participant(connection, row)
        await room_rows.close_room(connection, "gone-key", 8)
        labels = {"course": "maths"}
        of_task = update(tasks).where(tasks.c.task_id == "2")
        await connection.execute(of_task.values(labels=json.dumps(labels), room_id="other"))
        await connection.execute(
            insert(task_labels).values(task_id="2", app_id=APP, key="course", value="maths")
        )
        for task_id in "123":
            recording = f"r{task_id}"
            await recording_rows.insert_recording(
                connection, RecordingRow(recording, task_id, APP, 1, "ada", 5, None)
            )
            for number, state in enumerate(
                (segment_pb2.SEGMENT_STATE_UPLOADED, segment_pb2.SEGMENT_STATE_SPOOLED)
            ):
                if task_id == "3" and state != segment_pb2.SEGMENT_STATE_UPLOADED:
                    continue
                await connection.execute(insert(segments).values(_segment(task_id, recording, number, state)))
        await uow.append(warning("the newest"))

    await database.write(work)


def _segment(task_id: str, recording_id: str, number: int, state: int) -> Mapping[str, object]:
    return {
        "file_id": f"s{task_id}{number}",
        "recording_id": recording_id,
        "task_id": task_id,
        "app_id": APP,
        "room_id": ROOM,
        "kind": segment_pb2.RECORDING_KIND_SINGLE,
        "user_id": "ada",
        "segment_id": number,
        "container": media_pb2.CONTAINER_MP3,
        "codec": media_pb2.CODEC_MP3,
        "state": state,
        "start_ns": 5,
    }


async def test_a_snapshot_holds_what_there_is(database: Database, tmp_path: Path) -> None:
    await fill(database)
    other = ["2", "r2", "s21"]
    tasks_of_all = ["1", "r1", "s11", *other]
    rooms = ["other", ROOM, f"{ROOM}/ada", f"{ROOM}/ben"]
    types = event_pb2
    cases: Sequence[tuple[Filter, list[str]]] = (
        (Filter(), [*rooms, *tasks_of_all]),
        (Filter(room_ids=["other"]), ["other", *other]),
        (Filter(room_ids=["gone"]), []),
        (Filter(task_ids=["1"]), ["1", "r1", "s11"]),
        (Filter(task_ids=["3"]), ["3", "r3"]),
        (Filter(labels={"course": "maths"}), other),
        (Filter(labels={"course": "physics"}), []),
        (Filter(types=[types.EVENT_TYPE_TASK_STOPPED]), ["1", "2"]),
        (Filter(types=[types.EVENT_TYPE_TRACK_MUTED]), [f"{ROOM}/ada", f"{ROOM}/ben"]),
        (Filter(types=[types.EVENT_TYPE_ROOM_CLOSED]), ["other", ROOM]),
        (Filter(types=[types.EVENT_TYPE_RECORDING_ENDED]), ["r1", "r2"]),
        (Filter(types=[types.EVENT_TYPE_SEGMENT_UPLOADED]), ["s11", "s21"]),
        (Filter(types=[types.EVENT_TYPE_WARNING]), []),
    )
    async with watching(database, tmp_path) as w:
        for wanted, names in cases:
            call = w.watch(wanted)
            items, end = await snapshot_of(call)
            assert names_of(items) == names, wanted
            assert end.bookmark.sequence == 1
            assert end.resume_token == w.server.log.resume_token(APP, 1)
            call.cancel()
        items, _ = await snapshot_of(w.watch())
    ada = next(item.participant for item in items if item.participant.participant.user_id == "ada")
    assert ada.participant.publish_session_id == "session"
    assert (ada.participant.tracks[0].track_id, ada.participant.tracks[0].muted) == ("mic", True)
    task = next(item.task for item in items if item.task.task_id == "2")
    assert (task.state, task.labels["course"]) == (task_pb2.TASK_STATE_FINALIZING, "maths")


async def test_a_stream_of_one_task_that_has_ended_ends(database: Database, tmp_path: Path) -> None:
    await fill(database)
    async with watching(database, tmp_path) as w:
        call = w.watch(Filter(task_ids=["3"]))
        items, _ = await snapshot_of(call)
        assert items[0].task.state == task_pb2.TASK_STATE_COMPLETED
        assert await call.read() is aio.EOF
        # Nothing would ever come after any other start either.
        for origin in (event_pb2.WATCH_ORIGIN_NOW, event_pb2.WATCH_ORIGIN_OLDEST):
            request = Request(app_id=APP, origin=origin, filter=Filter(task_ids=["3"]))
            call = w.stub.WatchEvents(request)
            assert (await read(call)).bookmark.reason == STARTED
            assert await call.read() is aio.EOF


@pytest.fixture
async def sqlite(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Database]:
    """What does not differ between databases."""
    opened = Database(f"sqlite:///{tmp_path}/test.db", clock)
    await opened.open()
    await add_application(opened, APP)
    yield opened
    await opened.aclose()


async def test_half_a_snapshot_is_begun_again(sqlite: Database, tmp_path: Path) -> None:
    await fill(sqlite)
    async with watching(sqlite, tmp_path) as w:
        broken = w.watch()
        started, first = await read(broken), await read(broken)
        assert first.snapshot.room.room_id == "other"
        broken.cancel()
        await sqlite.write(partial(UnitOfWork.append, event=warning("between")))
        place = ""
        # One of a log that is gone lost nothing: its snapshot was not whole.
        of_another_log = token.encode_snapshot("0" * 16, APP)
        for resume_token in (started.resume_token, first.resume_token, of_another_log):
            call = w.resume(resume_token)
            items, end = await snapshot_of(call)
            assert names_of(items)[0] == "other"
            assert end.bookmark.sequence == 2
            call.cancel()
            place = end.resume_token
        await sqlite.write(partial(UnitOfWork.append, event=warning("after")))
        later = w.resume(place)
        assert (await read(later)).bookmark.reason == STARTED
        assert (await read(later)).event.warning.message == "after"


async def test_a_server_that_stops_in_a_snapshot_says_so(sqlite: Database, tmp_path: Path) -> None:
    async def open_rooms(uow: UnitOfWork) -> None:
        for number in range(3000):
            room_id = f"{number:05}{'x' * 100}"
            await room_rows.insert_room(uow.connection, RoomRow(room_id, APP, room_id, 1, 0, 7))

    await sqlite.write(open_rooms)
    async with watching(sqlite, tmp_path) as w:
        call = w.watch()
        started = await read(call)
        stopping = asyncio.ensure_future(w.server.server.aclose())
        count = 0
        while (message := await read(call)).HasField("snapshot"):
            count += 1
        assert count < 3001
        assert (message.bookmark.reason, message.bookmark.sequence) == (DRAINING, 0)
        assert message.resume_token == started.resume_token
        with pytest.raises(aio.AioRpcError) as error:
            await call.read()
        assert refusal(error.value)[:2] == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        await stopping


async def test_watchers_that_come_together_share_a_snapshot(sqlite: Database, tmp_path: Path) -> None:
    await fill(sqlite)
    async with watching(sqlite, tmp_path) as w:
        snapshots = Snapshots(sqlite, w.server.log)
        everything, one = EventFilter(), EventFilter(task_ids=frozenset({"1"}))
        taken = await asyncio.gather(*(snapshots.take(APP, everything, 1) for _ in range(50)))
        assert all(each is taken[0] for each in taken)
        assert await snapshots.take(APP, one, 1) is not taken[0]
        await sqlite.write(partial(UnitOfWork.append, event=warning("later")))
        later = await snapshots.take(APP, everything, 2)
        assert (taken[0].sequence, later.sequence) == (1, 2)
