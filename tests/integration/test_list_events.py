"""ListEvents over a real channel: the log page by page, for those who can't stream."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import aio
from sqlalchemy import insert, update

from roomtape.v1 import event_pb2, event_pb2_grpc, task_pb2
from roomtape_service.clock import ManualClock
from roomtape_service.database import Database, UnitOfWork
from roomtape_service.database.tables import task_labels, tasks
from roomtape_service.events.filter import EventFilter
from tests.support.databases import APP, add_application, add_tasks, warning
from tests.support.waiting import eventually
from tests.support.watching import WatchServer, refusal, serving

Request = event_pb2.ListEventsRequest
Response = event_pb2.ListEventsResponse
Filter = event_pb2.EventFilter

NOW = event_pb2.WATCH_ORIGIN_NOW
SHORT = Duration(nanos=50_000_000)
LONG = Duration(seconds=30)


@pytest.fixture
async def sqlite(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Database]:
    """For what does not differ between databases."""
    opened = Database(f"sqlite:///{tmp_path}/test.db", clock)
    await opened.open()
    await add_application(opened, APP)
    yield opened
    await opened.aclose()


@asynccontextmanager
async def listing(
    database: Database, folder: Path
) -> AsyncIterator[tuple[WatchServer, "event_pb2_grpc.WatchServiceAsyncStub"]]:
    async with serving(database, folder, tail_events=8) as server, server.stub() as stub:
        yield server, stub


async def append(database: Database, *texts: str, task_id: str = "") -> None:
    for text in texts:
        await database.write(partial(UnitOfWork.append, event=warning(text, task_id=task_id)))


async def add_labels(database: Database, labels: Mapping[str, Mapping[str, str]]) -> None:
    async def work(uow: UnitOfWork) -> None:
        for task_id, pairs in labels.items():
            of_task = tasks.c.task_id == task_id
            await uow.connection.execute(update(tasks).where(of_task).values(labels=json.dumps(dict(pairs))))
            for key, value in pairs.items():
                row = {"task_id": task_id, "app_id": APP, "key": key, "value": value}
                await uow.connection.execute(insert(task_labels).values(row))

    await database.write(work)


def texts_of(page: Response) -> list[str]:
    return [event.warning.message for event in page.events]


async def test_pages_follow_each_other_without_a_hole(database: Database, tmp_path: Path) -> None:
    texts = [str(number) for number in range(25)]
    await append(database, *texts)
    async with listing(database, tmp_path) as (_, stub):
        seen: list[str] = []
        request = Request(app_id=APP, page_size=10)
        while True:
            page = await stub.ListEvents(request)
            seen += texts_of(page)
            assert page.has_more == (len(seen) < 25)
            if not page.has_more:
                break
            request.resume_token = page.resume_token
        assert seen == texts
        # The same tokens serve a stream.
        await append(database, "later")
        call = stub.WatchEvents(event_pb2.WatchEventsRequest(app_id=APP, resume_token=page.resume_token))
        messages = [await call.read() for _ in range(2)]
        assert isinstance(messages[1], event_pb2.WatchEventsResponse)
        assert messages[1].event.warning.message == "later"
        page = await stub.ListEvents(Request(app_id=APP, resume_token=messages[1].resume_token))
        assert (texts_of(page), page.has_more, page.is_over) == ([], False, False)
        assert page.resume_token == messages[1].resume_token
        call.cancel()


async def test_a_page_is_bounded_in_bytes(sqlite: Database, tmp_path: Path) -> None:
    await append(sqlite, *("x" * 400_000 for _ in range(5)))
    async with listing(sqlite, tmp_path) as (_, stub):
        sizes = []
        request = Request(app_id=APP, page_size=5000)
        while True:
            page = await stub.ListEvents(request)
            sizes.append(len(page.events))
            request.resume_token = page.resume_token
            if not page.has_more:
                break
        assert sizes == [2, 2, 1]


async def test_a_wait_ends_with_the_first_event_that_matches(database: Database, tmp_path: Path) -> None:
    await add_tasks(database, ["1", "2"])
    await append(database, "before")
    async with listing(database, tmp_path) as (server, stub):
        now = await stub.ListEvents(Request(app_id=APP, origin=NOW))
        assert texts_of(now) == []
        wanted = Filter(task_ids=["1"])
        waiting = asyncio.ensure_future(
            stub.ListEvents(Request(app_id=APP, resume_token=now.resume_token, filter=wanted, wait=LONG))
        )
        await eventually(lambda: server.watch.statistics().streams == 1, "it waits")
        await append(database, "other", task_id="2")
        await append(database, "wanted", task_id="1")
        page = await waiting
        assert (texts_of(page), page.events[0].sequence) == (["wanted"], 3)
        await append(database, "another", task_id="2")
        # Nothing matches in time: the token goes past what did not.
        page = await stub.ListEvents(
            Request(app_id=APP, resume_token=page.resume_token, filter=wanted, wait=SHORT)
        )
        assert texts_of(page) == []
        page = await stub.ListEvents(Request(app_id=APP, resume_token=page.resume_token))
        assert texts_of(page) == []
        assert server.watch.statistics().streams == 0


async def test_a_wait_ends_before_the_deadline_and_when_the_server_stops(
    sqlite: Database, tmp_path: Path
) -> None:
    async with listing(sqlite, tmp_path) as (server, stub):
        page = await stub.ListEvents(Request(app_id=APP, wait=LONG), timeout=0.8)
        assert not page.events
        waiting = asyncio.ensure_future(stub.ListEvents(Request(app_id=APP, wait=LONG)))
        await eventually(lambda: server.watch.statistics().streams == 1, "it waits")
        await server.server.aclose()
        page = await waiting
        assert page.resume_token == server.log.resume_token(APP, 0)


async def test_a_caller_that_goes_leaves_nothing(sqlite: Database, tmp_path: Path) -> None:
    async with listing(sqlite, tmp_path) as (server, stub):
        call = stub.ListEvents(Request(app_id=APP, wait=LONG))
        waiting = asyncio.ensure_future(call)
        await eventually(lambda: server.watch.statistics().streams == 1, "it waits")
        call.cancel()
        await eventually(lambda: server.watch.statistics().streams == 0, "it is gone")
        await asyncio.gather(waiting, return_exceptions=True)


async def test_pages_of_one_task_end(database: Database, tmp_path: Path) -> None:
    await add_tasks(database, ["1", "2"], state=task_pb2.TASK_STATE_FINALIZING)
    await append(database, "first", task_id="1")
    wanted = Filter(task_ids=["1"])
    async with listing(database, tmp_path) as (_, stub):
        page = await stub.ListEvents(Request(app_id=APP, filter=wanted))
        assert (texts_of(page), page.is_over) == (["first"], False)
        waiting = asyncio.ensure_future(
            stub.ListEvents(Request(app_id=APP, filter=wanted, resume_token=page.resume_token, wait=LONG))
        )
        await database.write(_complete)
        page = await waiting
        assert [event.type for event in page.events] == [event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE]
        assert page.is_over
        # No wait for what can't come.
        page = await stub.ListEvents(
            Request(app_id=APP, filter=wanted, resume_token=page.resume_token, wait=LONG)
        )
        assert (list(page.events), page.is_over) == ([], True)
        page = await stub.ListEvents(Request(app_id=APP, filter=Filter(task_ids=["1", "2"])))
        assert (len(page.events), page.is_over) == (2, False)


async def _complete(uow: UnitOfWork) -> None:
    state = task_pb2.TASK_STATE_COMPLETED
    await uow.connection.execute(update(tasks).where(tasks.c.task_id == "1").values(state=state))
    task = task_pb2.Task(task_id="1", state=state)
    await uow.append(
        event_pb2.Event(
            type=event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE,
            app_id=APP,
            task_id="1",
            task=event_pb2.TaskDetail(task=task),
        )
    )


async def test_pages_end_where_the_history_was_compacted(database: Database, tmp_path: Path) -> None:
    await append(database, *"abcde")
    async with listing(database, tmp_path) as (server, stub):
        old = server.log.resume_token(APP, 1)
        await server.log.compact(APP, 3)
        with pytest.raises(aio.AioRpcError) as error:
            await stub.ListEvents(Request(app_id=APP, resume_token=old))
        code, reason, metadata = refusal(error.value)
        assert (code, reason) == (grpc.StatusCode.OUT_OF_RANGE, "EVENT_HISTORY_COMPACTED")
        assert metadata["oldestSequence"] == "4"
        page = await stub.ListEvents(Request(app_id=APP, resume_token=metadata["oldestResumeToken"]))
        assert texts_of(page) == ["d", "e"]
        with pytest.raises(aio.AioRpcError) as error:
            await stub.ListEvents(Request(app_id=APP, resume_token=server.log.resume_token(APP, 6)))
        code, reason, metadata = refusal(error.value)
        assert (code, reason) == (grpc.StatusCode.OUT_OF_RANGE, "EVENT_HISTORY_LOST")


async def test_a_filter_takes_the_same_from_pages_streams_and_memory(
    database: Database, tmp_path: Path
) -> None:
    random = Random(11)
    await add_tasks(database, ["1", "2", "3"])
    await add_labels(database, {"1": {"a": "1", "b": "2"}, "2": {"a": "1"}})
    types = [event_pb2.EVENT_TYPE_WARNING, event_pb2.EVENT_TYPE_GAP, event_pb2.EVENT_TYPE_ROOM_CREATED]
    filters = [
        Filter(
            task_ids=random.sample(["1", "2", "3"], random.choice([0, 0, 1, 2])),
            room_ids=random.sample(["r", "s"], random.choice([0, 0, 1])),
            types=random.sample(types, random.choice([0, 0, 1, 2])),
            labels=random.choice([{}, {}, {"a": "1"}, {"a": "1", "b": "2"}, {"b": "1"}]),
        )
        for _ in range(25)
    ]
    async with listing(database, tmp_path) as (_, stub):
        live = [stub.WatchEvents(event_pb2.WatchEventsRequest(app_id=APP, filter=each)) for each in filters]
        for stream in live:
            await stream.read()
        appended: list[event_pb2.Event] = []
        for _ in range(80):
            event = event_pb2.Event(
                app_id=APP,
                type=random.choice(types),
                room_id=random.choice(["r", "s"]),
                task_id=random.choice(["", "1", "2", "3"]),
            )
            appended.append(await database.write(partial(UnitOfWork.append, event=event)))
        for wanted, stream in zip(filters, live, strict=True):
            expected = [event for event in appended if EventFilter.of(wanted).takes(event)]
            request = Request(app_id=APP, filter=wanted, page_size=random.choice([1, 7, 80]))
            listed: list[event_pb2.Event] = []
            has_more = True
            while has_more:
                page = await stub.ListEvents(request)
                listed += page.events
                has_more, request.resume_token = page.has_more, page.resume_token
            assert listed == expected, wanted
            streamed = []
            for _ in expected:
                message = await stream.read()
                assert isinstance(message, event_pb2.WatchEventsResponse)
                streamed.append(message.event)
            assert streamed == expected, wanted
            stream.cancel()


async def test_labels_are_those_of_the_task(database: Database, tmp_path: Path) -> None:
    await add_tasks(database, ["1", "2", "3"])
    await add_labels(database, {"1": {"course": "maths", "level": "1"}, "2": {"course": "maths"}})
    maths, first = {"course": "maths"}, {"course": "maths", "level": "1"}
    async with listing(database, tmp_path) as (_, stub):
        for turn in ("stored", "in memory"):
            if turn == "stored":
                streams = []
            else:
                streams = [
                    stub.WatchEvents(event_pb2.WatchEventsRequest(app_id=APP, filter=Filter(labels=labels)))
                    for labels in (maths, first)
                ]
                for stream in streams:
                    await stream.read()
            for task_id in ("1", "2", "3", ""):
                await append(database, f"{turn} {task_id}", task_id=task_id)
            for stream, expected in zip(streams, (["1", "2"], ["1"]), strict=False):
                for task_id in expected:
                    message = await stream.read()
                    assert isinstance(message, event_pb2.WatchEventsResponse)
                    assert message.event.warning.message == f"in memory {task_id}"
                    assert dict(message.event.labels) == (first if task_id == "1" else maths)
                stream.cancel()
        for labels, count in ((maths, 4), (first, 2), ({"course": "Maths"}, 0), ({"level": "1"}, 2)):
            page = await stub.ListEvents(Request(app_id=APP, filter=Filter(labels=labels)))
            assert len(page.events) == count, labels
