"""The log without a server: tokens, memory and database taking turns, cursors, retention."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import error_pb2, event_pb2, task_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.database import Database, UnitOfWork, requests
from roomtape_service.database import events as event_rows
from roomtape_service.database.events import LoggedRow
from roomtape_service.errors import Refusal
from roomtape_service.events import token
from roomtape_service.events.cursor import Cursor
from roomtape_service.events.filter import EventFilter
from roomtape_service.events.log import EventLog
from roomtape_service.events.pages import PAGE_EVENTS, Pages
from roomtape_service.events.retention import Retention
from roomtape_service.events.tail import LoggedEvent, Tail
from tests.support.databases import APP, add_application, add_tasks, stored_texts, warning

EPOCH = "00112233445566ff"
ALL = EventFilter()
OF_TASK = EventFilter(task_ids=frozenset({"1"}))
ANY_BYTES = 1 << 40


@pytest.fixture
async def log(database: Database) -> AsyncIterator[EventLog]:
    log = EventLog(database, tail_events=4)
    await log.start()
    yield log
    await log.aclose()


async def append(database: Database, *texts: str, task_id: str = "") -> None:
    for text in texts:
        await database.write(partial(UnitOfWork.append, event=warning(text, task_id=task_id)))


def texts_of(events: Sequence[LoggedEvent] | None) -> list[str] | None:
    if events is None:
        return None
    return [
        event_pb2.WatchEventsResponse.FromString(event.response).event.warning.message for event in events
    ]


async def rest_of(cursor: Cursor) -> list[str]:
    texts: list[str] = []
    while not cursor.at_head:
        events = cursor.take()
        texts += texts_of(await cursor.read() if events is None else events) or []
    return texts


@given(st.integers(0, 2**63 - 1), st.from_regex(r"[A-Za-z0-9.-]{1,64}", fullmatch=True))
def test_tokens_hold_their_place(sequence: int, app_id: str) -> None:
    text = token.encode(EPOCH, app_id, sequence)
    assert len(text) <= 128
    assert token.decode(text, app_id) == token.ResumeToken(EPOCH, sequence)


@given(st.text(max_size=60))
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        token.decode(text, APP)
    assert refused.value.reason == error_pb2.ERROR_REASON_INVALID_RESUME_TOKEN


def test_every_changed_character_of_a_token_is_noticed() -> None:
    text = token.encode(EPOCH, APP, 12)
    for place in range(len(text) - 1):
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        with pytest.raises(Refusal):
            token.decode(changed, APP)
    with pytest.raises(Refusal):
        token.decode(text, "other")


async def test_a_cursor_goes_from_the_database_over_to_memory(database: Database, log: EventLog) -> None:
    texts = [str(number) for number in range(600)]
    await append_many(database, texts[:590])
    async with log.cursor(APP, ALL, oldest=True) as cursor:
        assert cursor.take() is None
        await append_many(database, texts[590:])
        assert await rest_of(cursor) == texts
        assert cursor.take() == ()
        await append(database, "next")
        assert texts_of(cursor.take()) == ["next"]


async def append_many(database: Database, texts: Sequence[str]) -> None:
    async def work(uow: UnitOfWork) -> None:
        for text in texts:
            await uow.append(warning(text))

    await database.write(work)


async def test_a_cursor_waits_for_what_it_wants_only(database: Database, log: EventLog) -> None:
    await add_tasks(database, ["1", "2"])
    filters = {
        "task": EventFilter(task_ids=frozenset({"1"})),
        "type": EventFilter(types=frozenset({event_pb2.EVENT_TYPE_GAP})),
        "all": ALL,
    }
    for name, wanted in filters.items():
        async with log.cursor(APP, wanted) as cursor:
            waiting = cursor.wait()
            await append(database, "of 2", task_id="2")
            assert waiting.done() == (name == "all")
            cursor.interrupt()
            await waiting
            # What it did not want lies behind it.
            assert bool(cursor.take()) == (name == "all")
            assert cursor.at_head
    async with log.cursor(APP, filters["task"]) as cursor:
        waiting = cursor.wait()
        await append(database, *"abc", task_id="2")
        await append(database, "mine", task_id="1")
        assert waiting.done()
        assert texts_of(cursor.take()) == ["mine"]


async def test_a_cursor_that_read_ahead_of_memory_gets_nothing_twice() -> None:
    tail = Tail(APP, EPOCH, capacity=4)
    tail.fill([], head=0, compacted=0)

    async def read(cursor: Cursor, tail: Tail) -> Sequence[LoggedEvent]:
        cursor.position = 2
        return [LoggedEvent.of(numbered(sequence), EPOCH) for sequence in (1, 2)]

    cursor = Cursor(tail, ALL, read)
    tail.attach(cursor)
    # Committed and read, before this process heard of the commits.
    assert len(await cursor.read()) == 2
    waiting = cursor.wait()
    tail.extend([numbered(1), numbered(2)])
    assert waiting.done()
    assert cursor.take() == ()
    tail.extend([numbered(3)])
    assert [event.sequence for event in cursor.take() or ()] == [3]


async def test_a_hole_in_memory_is_read_from_the_database() -> None:
    tail = Tail(APP, EPOCH, capacity=4)
    tail.fill([row_of(numbered(1))], head=1, compacted=0)

    async def read(cursor: Cursor, tail: Tail) -> Sequence[LoggedEvent]:
        raise AssertionError

    cursors = [Cursor(tail, ALL, read), Cursor(tail, EventFilter(task_ids=frozenset({"1"})), read)]
    for cursor in cursors:
        tail.attach(cursor)
        cursor.position = 1
    waiting = [cursor.wait() for cursor in cursors]
    tail.extend([numbered(3)])
    assert all(waiter.done() for waiter in waiting)
    assert [cursor.take() for cursor in cursors] == [None, None]


async def test_commits_of_which_nobody_told_are_found(database: Database, log: EventLog) -> None:
    await append(database, "a")
    quick = EventLog(database, look_seconds=0.01)
    await quick.start()
    # As when the answer to a commit is lost, or another node writes.
    database.unsubscribe(quick._committed)
    async with quick.cursor(APP, ALL) as all_of_it, quick.cursor(APP, OF_TASK) as of_task:
        waiting, other = all_of_it.wait(), of_task.wait()
        await append(database, "b", "c")
        async with asyncio.timeout(10):
            await asyncio.gather(waiting, other)
        assert await rest_of(all_of_it) == ["b", "c"]
        assert await rest_of(of_task) == []
        assert of_task.at_head
    database.subscribe(quick._committed)
    await quick.aclose()


def row_of(event: event_pb2.Event) -> LoggedRow:
    payload = event.SerializeToString()
    return LoggedRow(event.sequence, event.task_id, event.room_id, event.type, payload)


@pytest.mark.parametrize("size", [1, 100, 127, 128, 16_000, 17_000, 3_000_000])
def test_an_event_is_the_same_from_memory_and_from_the_database(size: int) -> None:
    event = numbered(7)
    event.warning.message = "x" * size
    response = event_pb2.WatchEventsResponse(resume_token=token.encode(EPOCH, APP, 7), event=event)
    logged = LoggedEvent.of(event, EPOCH)
    assert logged == LoggedEvent.stored(row_of(event), APP, EPOCH)
    assert logged.response == response.SerializeToString()
    assert logged.event == event


def test_the_events_that_end_a_task_are_known_from_memory_and_from_the_database() -> None:
    failed = event_pb2.TaskDetail(task=task_pb2.Task(state=task_pb2.TASK_STATE_FAILED))
    stopped = event_pb2.TaskDetail(task=task_pb2.Task(state=task_pb2.TASK_STATE_FINALIZING))
    changed, complete = event_pb2.EVENT_TYPE_TASK_STATE_CHANGED, event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE
    for event_type, detail, ends in (
        (changed, failed, True),
        (changed, stopped, False),
        (complete, stopped, True),
        (event_pb2.EVENT_TYPE_TASK_STOPPED, stopped, False),
    ):
        event = event_pb2.Event(sequence=1, app_id=APP, task_id="1", type=event_type, task=detail)
        assert LoggedEvent.of(event, EPOCH).ends_task == ends
        assert LoggedEvent.stored(row_of(event), APP, EPOCH).ends_task == ends


def numbered(sequence: int) -> event_pb2.Event:
    event = warning(str(sequence))
    event.sequence = sequence
    return event


async def test_commits_while_a_log_is_first_read_are_not_lost() -> None:
    tail = Tail(APP, EPOCH, capacity=4)
    tail.extend([numbered(2), numbered(3), numbered(4)])
    tail.fill([row_of(numbered(1)), row_of(numbered(2))], head=2, compacted=0)
    assert [event.sequence for event in tail.after(0, 10) or ()] == [1, 2, 3, 4]


async def test_memory_is_bounded() -> None:
    tail = Tail(APP, EPOCH, capacity=4)
    tail.fill([], head=0, compacted=0)
    for sequence in range(1, 101):
        tail.extend([numbered(sequence)])
        kept = [event.sequence for event in tail.after(max(0, sequence - 4), 10) or ()]
        assert kept == list(range(max(0, sequence - 4) + 1, sequence + 1))
    assert tail.after(90, 10) is None


async def test_many_cursors_at_once_find_the_same_head(database: Database, log: EventLog) -> None:
    await append(database, "a")

    async def position() -> int:
        async with log.cursor(APP, ALL) as cursor:
            return cursor.position

    assert set(await asyncio.gather(*(position() for _ in range(100)))) == {1}


async def test_a_cursor_that_falls_out_of_the_history_is_told(database: Database, log: EventLog) -> None:
    async with log.cursor(APP, ALL) as cursor:
        await append(database, *"abcdefghij")
        assert await log.compact(APP, 8) == 8
        assert cursor.take() is None
        with pytest.raises(Refusal) as refused:
            await cursor.read()
    assert refused.value.reason == error_pb2.ERROR_REASON_EVENT_HISTORY_COMPACTED
    assert refused.value.metadata["oldestSequence"] == "9"
    place = token.decode(refused.value.metadata["oldestResumeToken"], APP)
    async with log.cursor(APP, ALL, place=place) as cursor:
        assert await rest_of(cursor) == ["i", "j"]


async def test_compaction_ends_at_the_head(database: Database, log: EventLog) -> None:
    await append(database, *"abc")
    assert await log.compact(APP, 100) == 3
    assert await log.compact(APP, 1) == 3
    assert await stored_texts(database) == []
    await append(database, "d")
    async with log.cursor(APP, ALL, oldest=True) as cursor:
        assert await rest_of(cursor) == ["d"]


async def test_retention_keeps_so_many_events(database: Database, log: EventLog, clock: ManualClock) -> None:
    await append_many(database, [str(number) for number in range(1200)])
    await add_application(database, "empty")
    retention = Retention(database, log, clock, keep_seconds=60, keep_events=50, keep_bytes=ANY_BYTES)
    for _ in range(2):
        await retention.tick()
        assert await stored_texts(database) == [str(number) for number in range(1150, 1200)]


async def test_retention_keeps_so_many_bytes(database: Database, log: EventLog, clock: ManualClock) -> None:
    texts = [f"{number:04}{'x' * (number % 7) * 100}" for number in range(1200)]
    await append_many(database, texts)
    sizes = [event.ByteSize() for event in await rest_of_log(log)]
    kept_bytes = 100_000
    retention = Retention(database, log, clock, keep_seconds=60, keep_events=10_000, keep_bytes=kept_bytes)
    for _ in range(2):
        await retention.tick()
        kept = len(await stored_texts(database))
        assert sum(sizes[-kept + 1 :]) < kept_bytes <= sum(sizes[-kept:])
    # A log that was emptied begins to count anew.
    await log.compact(APP, 1200)
    await append_many(database, texts[:10])
    await retention.tick()
    assert len(await stored_texts(database)) == 10


async def rest_of_log(log: EventLog) -> list[event_pb2.Event]:
    async with log.cursor(APP, ALL, oldest=True) as cursor:
        found: list[event_pb2.Event] = []
        while events := cursor.take() or (() if cursor.at_head else await cursor.read()):
            found += [event.event for event in events]
        return found


async def test_retention_keeps_what_is_young(database: Database, log: EventLog, clock: ManualClock) -> None:
    request = warning("request")

    async def reply(uow: UnitOfWork) -> None:
        await requests.store(uow, APP, "id", "Method", request, request)

    await database.write(reply)
    await append(database, *"ab")
    clock.advance(30)
    await append(database, *"cd")
    retention = Retention(database, log, clock, keep_seconds=60, keep_events=50, keep_bytes=ANY_BYTES)
    for seconds, left in ((29, "abcd"), (2, "cd"), (30, "")):
        clock.advance(seconds)
        await retention.tick()
        assert await stored_texts(database) == list(left)
    assert await database.write(lambda uow: requests.replay(uow, APP, "id", "Method", request))
    clock.advance(requests.KEPT_SECONDS)
    await retention.tick()
    assert await database.write(lambda uow: requests.purge(uow, 1)) == 0


async def test_retention_runs_until_it_is_closed(
    database: Database, log: EventLog, clock: ManualClock
) -> None:
    retention = Retention(
        database, log, clock, keep_seconds=60, keep_events=1, keep_bytes=ANY_BYTES, interval_seconds=0.01
    )
    await append(database, *"ab")
    running = asyncio.create_task(retention.run())
    while await stored_texts(database) != ["b"]:
        pass
    await append(database, "c")
    while await stored_texts(database) != ["c"]:
        pass
    await asyncio.gather(retention.aclose(), retention.aclose())
    await running


async def test_who_is_behind_together_reads_together(
    database: Database, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [str(number) for number in range(5 * PAGE_EVENTS)]
    await append_many(database, texts)
    reads = 0
    scan = database.scan

    async def counted(work: Callable[[AsyncConnection], Awaitable[object]]) -> object:
        nonlocal reads
        # Once a second the log looks for new events, too.
        looks = isinstance(work, partial) and work.func is event_rows.heads
        reads += not looks
        return await scan(work)

    monkeypatch.setattr(database, "scan", counted)
    async with AsyncExitStack() as stack:
        cursors = [await stack.enter_async_context(log.cursor(APP, ALL, oldest=True)) for _ in range(50)]
        # Most of them are somewhere in a page.
        for number, cursor in enumerate(cursors):
            cursor.position = number
        for number, rest in enumerate(await asyncio.gather(*(rest_of(cursor) for cursor in cursors))):
            assert rest == texts[number:]
    assert reads <= 5


def test_pages_are_bounded_and_full() -> None:
    pages = Pages(capacity_bytes=10_000_000)
    page = [LoggedEvent.of(numbered(sequence), EPOCH) for sequence in range(1, PAGE_EVENTS + 1)]
    pages.keep(APP, 0, page[1:])
    assert pages.after(APP, 0) is None
    pages.keep(APP, 0, page)
    assert pages.after(APP, 0) == page
    assert pages.after(APP, 3) == page[3:]
    assert pages.after("other", 0) is None
    large = numbered(PAGE_EVENTS + 1)
    large.warning.message = "x" * 10_000_000
    rest = [LoggedEvent.of(numbered(PAGE_EVENTS + sequence), EPOCH) for sequence in range(2, PAGE_EVENTS + 1)]
    pages.keep(APP, PAGE_EVENTS, [LoggedEvent.of(large, EPOCH), *rest])
    assert pages.after(APP, 0) is None
    assert pages.after(APP, PAGE_EVENTS) is None
