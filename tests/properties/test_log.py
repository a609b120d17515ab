"""The log: what 8 writers commit in any order, 50 watchers who stop and resume at random see whole and in order."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2, event_pb2_grpc
from roomtape_service.clock import SystemClock
from roomtape_service.database import Database, UnitOfWork, requests
from roomtape_service.database.tables import applications, events
from tests.support.databases import APP, ROOM, add_application, add_tasks, warning
from tests.support.watching import WatchServer, serving

WRITERS = 8
WATCHERS = 50
UNITS_A_WRITER = 25
TASKS = ("11", "12", "13", "14")
OTHER_APP = "other"
# So small that watchers who were away find some of what they missed in memory, and some only in the database.
TAIL_EVENTS = 64


class Undone(Exception):
    """Makes a unit fail at its end."""


@dataclass(frozen=True)
class Unit:
    """One unit of work: events of some tasks or none, delays between them and before the commit."""

    name: str
    task_ids: Sequence[str]
    type: event_pb2.EventType.ValueType
    delays: Sequence[float]
    touches_other: bool
    undone: bool

    @classmethod
    def make(cls, name: str, random: Random) -> "Unit":
        task_ids = random.sample([*TASKS, ""], random.randint(1, 3))
        return cls(
            name,
            task_ids,
            random.choice((event_pb2.EVENT_TYPE_WARNING, event_pb2.EVENT_TYPE_GAP)),
            [random.choice((0.0, random.uniform(0, 0.004))) for _ in task_ids],
            touches_other=random.random() < 0.1,
            undone=random.random() < 0.2,
        )

    async def work(self, uow: UnitOfWork) -> Sequence[event_pb2.Event]:
        request = warning(self.name)
        assert await requests.replay(uow, APP, self.name, "Write", request) is None
        if self.touches_other:
            await uow.append(warning(self.name, app_id=OTHER_APP))
        appended = []
        for task_id, delay in zip(self.task_ids, self.delays, strict=True):
            event = warning(self.name, task_id=task_id)
            event.type = self.type
            appended.append(await uow.append(event))
            await asyncio.sleep(delay)
        await requests.store(uow, APP, self.name, "Write", request, appended[-1])
        if self.undone:
            raise Undone
        return appended


@dataclass
class Watcher:
    """What one watcher asks for, what it got, and the tokens at which it had got that many events."""

    random: Random
    wanted: event_pb2.EventFilter
    seen: list[event_pb2.Event] = field(default_factory=list)
    tokens: list[tuple[str, int]] = field(default_factory=list)
    streams: int = 0

    @classmethod
    def make(cls, number: int, random: Random) -> "Watcher":
        """Half of them want everything; the others a task, two tasks, or a type."""
        wanted = event_pb2.EventFilter()
        match number % 6:
            case 3:
                wanted.task_ids.append(random.choice(TASKS))
            case 4:
                wanted.task_ids.extend(random.sample(TASKS, 2))
            case 5:
                wanted.types.append(event_pb2.EVENT_TYPE_GAP)
                wanted.room_ids.append(ROOM)
        return cls(random, wanted)

    def matches(self, event: event_pb2.Event) -> bool:
        return (not self.wanted.task_ids or event.task_id in self.wanted.task_ids) and (
            not self.wanted.types or event.type in self.wanted.types
        )

    def request(self) -> event_pb2.WatchEventsRequest:
        """Where the next stream starts: mostly where the last ended, sometimes earlier, and all comes again."""
        request = event_pb2.WatchEventsRequest(app_id=APP, filter=self.wanted)
        request.bookmark_interval.FromSeconds(1)
        if not self.tokens:
            request.origin = event_pb2.WATCH_ORIGIN_OLDEST
            return request
        back = self.random.randint(2, 20) if self.random.random() < 0.2 else 1
        del self.tokens[max(1, len(self.tokens) + 1 - back) :]
        request.resume_token, seen = self.tokens[-1]
        del self.seen[seen:]
        return request


async def test_every_watcher_sees_every_event_once_and_in_order(database_url: str, tmp_path: Path) -> None:
    random = Random(1)
    database = Database(database_url, SystemClock())
    await database.open()
    for app_id in (APP, OTHER_APP):
        await add_application(database, app_id)
    await add_tasks(database, TASKS)
    watchers = [Watcher.make(number, Random(random.random())) for number in range(WATCHERS)]
    written = asyncio.Event()
    async with serving(database, tmp_path, tail_events=TAIL_EVENTS) as server:
        watching = [asyncio.create_task(watch(server, database, watcher, written)) for watcher in watchers]
        writing = [write(database, str(number), Random(random.random())) for number in range(WRITERS)]
        acknowledged = [events for of_writer in await asyncio.gather(*writing) for events in of_writer]
        written.set()
        await asyncio.gather(*watching)
    log = await database.read(stored)
    await database.aclose()

    assert [event.sequence for event in log] == list(range(1, len(log) + 1))
    for task_id in TASKS:
        of_task = [event.task_sequence for event in log if event.task_id == task_id]
        assert of_task == list(range(1, len(of_task) + 1))
    assert sorted(event.sequence for events in acknowledged for event in events) == [
        event.sequence for event in log
    ]
    for events_of_unit in acknowledged:
        assert [log[event.sequence - 1] for event in events_of_unit] == list(events_of_unit)
    for watcher in watchers:
        assert watcher.streams > 1
        assert watcher.seen == [event for event in log if watcher.matches(event)]


async def write(database: Database, name: str, random: Random) -> list[Sequence[event_pb2.Event]]:
    """Commits units one after the other; the events of each that was acknowledged."""
    acknowledged = []
    for number in range(UNITS_A_WRITER):
        unit = Unit.make(f"{name}-{number}", random)
        try:
            acknowledged.append(await database.write(unit.work))
        except Undone:
            continue
        # What was answered is durable.
        assert await database.read(head) >= acknowledged[-1][-1].sequence
    return acknowledged


async def watch(server: WatchServer, database: Database, watcher: Watcher, written: asyncio.Event) -> None:
    """Opens stream after stream until all is written and seen."""
    async with server.stub() as stub:
        while True:
            until = await database.read(head) if written.is_set() else None
            watcher.streams += 1
            try:
                async with asyncio.timeout(None if until else watcher.random.uniform(0.01, 0.3)):
                    if await watch_once(stub, watcher, until):
                        return
            except TimeoutError:
                pass


async def watch_once(
    stub: "event_pb2_grpc.WatchServiceAsyncStub", watcher: Watcher, until: int | None
) -> bool:
    """One stream: some messages, or everything up to the sequence `until`; whether that was reached."""
    messages = watcher.random.randint(1, 60)
    last = -1
    call = stub.WatchEvents(watcher.request())
    try:
        async for response in call:
            if response.WhichOneof("item") == "event":
                assert response.event.sequence > last
                last = response.event.sequence
                watcher.seen.append(response.event)
            else:
                assert response.bookmark.sequence >= last
                is_first = response.bookmark.reason == event_pb2.BOOKMARK_REASON_STARTED
                assert is_first == (last < 0)
                last = response.bookmark.sequence
            watcher.tokens.append((response.resume_token, len(watcher.seen)))
            messages -= 1
            if until is None and not messages:
                return False
            if until is not None and last >= until:
                return True
    finally:
        call.cancel()
    raise AssertionError("the stream ended by itself")


async def head(connection: AsyncConnection) -> int:
    return (
        await connection.scalar(select(applications.c.last_sequence).where(applications.c.app_id == APP))
    ) or 0


async def stored(connection: AsyncConnection) -> list[event_pb2.Event]:
    payloads = await connection.scalars(
        select(events.c.payload).where(events.c.app_id == APP).order_by(events.c.sequence)
    )
    return [event_pb2.Event.FromString(payload) for payload in payloads]
