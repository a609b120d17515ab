"""WatchEvents over real channels: the promises of `event.proto`, one by one."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status
from sqlalchemy import update

from roomtape.v1 import event_pb2, event_pb2_grpc, task_pb2
from roomtape_service.clock import NANOSECONDS, ManualClock
from roomtape_service.database import Database, UnitOfWork
from roomtape_service.database.tables import tasks
from roomtape_service.events import token
from roomtape_service.rpc.watch import WatchSettings
from tests.support.databases import APP, ROOM, add_application, add_tasks, warning
from tests.support.waiting import eventually
from tests.support.watching import WatchServer, refusal, serving

Request = event_pb2.WatchEventsRequest
Response = event_pb2.WatchEventsResponse
Filter = event_pb2.EventFilter
Call: TypeAlias = "aio.UnaryStreamCall[Request, Response]"

OLDEST = event_pb2.WATCH_ORIGIN_OLDEST
STARTED = event_pb2.BOOKMARK_REASON_STARTED
IDLE = event_pb2.BOOKMARK_REASON_IDLE
DRAINING = event_pb2.BOOKMARK_REASON_DRAINING
# Bookmarks come soon, so that tests need not wait a second for each.
SOON = WatchSettings(least_bookmark_seconds=0.02, default_bookmark_seconds=0.05)


@pytest.fixture
async def database(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Database]:
    """On SQLite only: what differs between databases is tested below this level."""
    opened = Database(f"sqlite:///{tmp_path}/test.db", clock)
    await opened.open()
    await add_application(opened, APP)
    yield opened
    await opened.aclose()


class Watching:
    """A server and a stub."""

    def __init__(self, server: WatchServer, stub: "event_pb2_grpc.WatchServiceAsyncStub") -> None:
        self.server = server
        self.stub = stub

    def watch(self, **fields: object) -> Call:
        return self.stub.WatchEvents(Request(**{"app_id": APP, **fields}))  # type: ignore[arg-type]

    async def refused(self, **fields: object) -> tuple[grpc.StatusCode, str, dict[str, str]]:
        with pytest.raises(aio.AioRpcError) as error:
            await read(self.watch(**fields), 1)
        return refusal(error.value)


@asynccontextmanager
async def watching(
    database: Database, tmp_path: Path, settings: WatchSettings | None = None, tail_events: int = 1024
) -> AsyncIterator[Watching]:
    async with (
        serving(database, tmp_path, settings=settings, tail_events=tail_events) as server,
        server.stub() as stub,
    ):
        yield Watching(server, stub)


async def read(call: Call, count: int) -> list[Response]:
    messages = []
    async for message in call:
        messages.append(message)
        if len(messages) == count:
            break
    return messages


async def read_all(call: Call) -> list[Response]:
    return [message async for message in call]


async def read_into(messages: list[Response], call: Call) -> None:
    """Keeps what came before the error."""
    async for message in call:
        messages.append(message)  # noqa: PERF401


async def append(database: Database, *texts: str, task_id: str = "", app_id: str = APP) -> None:
    for text in texts:
        event = warning(text, task_id=task_id, app_id=app_id)
        await database.write(partial(UnitOfWork.append, event=event))


def texts_of(messages: list[Response]) -> list[str]:
    return [message.event.warning.message for message in messages if message.HasField("event")]


def reasons_of(messages: list[Response]) -> list[int]:
    return [message.bookmark.reason for message in messages if message.HasField("bookmark")]


async def end_task(
    database: Database, task_id: str, state: task_pb2.TaskState.ValueType = task_pb2.TASK_STATE_COMPLETED
) -> None:
    """Moves a FINALIZING task to its end, with the events of that."""

    async def work(uow: UnitOfWork) -> None:
        await uow.connection.execute(update(tasks).where(tasks.c.task_id == task_id).values(state=state))
        task = task_pb2.Task(task_id=task_id, state=state)
        types: list[event_pb2.EventType.ValueType] = [event_pb2.EVENT_TYPE_TASK_STATE_CHANGED]
        if state == task_pb2.TASK_STATE_COMPLETED:
            types.append(event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE)
        for event_type in types:
            detail = event_pb2.TaskDetail(task=task)
            await uow.append(
                event_pb2.Event(type=event_type, app_id=APP, room_id=ROOM, task_id=task_id, task=detail)
            )

    await database.write(work)


async def test_a_stream_starts_now_at_the_oldest_or_after_a_token(database: Database, tmp_path: Path) -> None:
    await append(database, "a", "b")
    async with watching(database, tmp_path) as w:
        now, oldest = w.watch(), w.watch(origin=OLDEST)
        first = await read(now, 1)
        assert reasons_of(first) == [STARTED]
        assert first[0].bookmark.sequence == 2
        await append(database, "c")
        assert texts_of(await read(now, 1)) == ["c"]
        history = await read(oldest, 4)
        assert reasons_of(history) == [STARTED]
        assert texts_of(history) == ["a", "b", "c"]
        assert history[0].bookmark.sequence == 0
        for place, message in enumerate(history):
            later = await read(w.watch(resume_token=message.resume_token), 4 - place)
            assert texts_of(later) == ["a", "b", "c"][place:]
            assert len(message.resume_token) <= 128
        assert await database.read(lambda c: w.server.log.head(c, APP)) == 3
        assert w.server.log.resume_token(APP, 3) == history[-1].resume_token


async def test_filters_take_what_meets_every_condition(database: Database, tmp_path: Path) -> None:
    await add_tasks(database, ["1", "2"])

    async def fill() -> None:
        await append(database, "of no task")
        await append(database, "of 1", task_id="1")
        await append(database, "of 2", task_id="2")
        gap = event_pb2.Event(type=event_pb2.EVENT_TYPE_GAP, app_id=APP, room_id="elsewhere", task_id="2")
        await database.write(lambda uow: uow.append(gap))

    warnings, gaps = [event_pb2.EVENT_TYPE_WARNING], [event_pb2.EVENT_TYPE_GAP]
    cases = [
        (Filter(task_ids=["1"]), [2]),
        (Filter(task_ids=["1", "2"]), [2, 3, 4]),
        (Filter(types=gaps), [4]),
        (Filter(types=warnings, room_ids=[ROOM]), [1, 2, 3]),
        (Filter(types=warnings, task_ids=["2"]), [3]),
        (Filter(types=warnings, room_ids=["elsewhere"]), []),
        (Filter(), [1, 2, 3, 4]),
    ]
    async with watching(database, tmp_path, SOON) as w:
        live = [w.watch(filter=wanted) for wanted, _ in cases]
        for call in live:
            assert reasons_of(await read(call, 1)) == [STARTED]
        await fill()
        for call, (wanted, sequences) in zip(live, cases, strict=True):
            stored = w.watch(origin=OLDEST, filter=wanted)
            for messages in (await until_sequence(call, 4), await until_sequence(stored, 4)):
                assert [m.event.sequence for m in messages if m.HasField("event")] == sequences
            await until_sequence(w.watch(resume_token=w.server.log.resume_token(APP, 3), filter=wanted), 4)


async def until_sequence(call: Call, sequence: int) -> list[Response]:
    """Reads until everything up to `sequence` has come or was filtered out."""
    messages = []
    async for message in call:
        messages.append(message)
        if max(message.event.sequence, message.bookmark.sequence) >= sequence:
            break
    call.cancel()
    return messages


async def test_bookmarks_come_when_nothing_matches(database: Database, tmp_path: Path) -> None:
    await add_tasks(database, ["1", "2"])
    async with watching(database, tmp_path, SOON) as w:
        call = w.watch(filter=Filter(task_ids=["1"]), bookmark_interval=Duration(nanos=60_000_000))
        assert reasons_of(await read(call, 1)) == [STARTED]
        started, tokens = time.monotonic(), []
        for number in range(4):
            await append(database, f"filtered out {number}", task_id="2")
            (message,) = await read(call, 1)
            tokens.append(message.resume_token)
            assert message.bookmark.reason == IDLE
            assert message.bookmark.sequence == number + 1
        # One interval less than came, for the first message may have been late.
        assert time.monotonic() - started > 3 * 0.06 * 0.9
        resumed = w.watch(resume_token=tokens[-1], filter=Filter(task_ids=["2"]))
        await read(resumed, 1)
        await append(database, "next", task_id="2")
        assert texts_of(await read(resumed, 1)) == ["next"]


@pytest.mark.parametrize("seconds", [0, -5, 100_000])
async def test_bookmark_intervals_are_bounded(database: Database, tmp_path: Path, seconds: int) -> None:
    settings = WatchSettings(least_bookmark_seconds=0.02, most_bookmark_seconds=0.03)
    async with watching(database, tmp_path, settings) as w:
        messages = await read(w.watch(bookmark_interval=Duration(seconds=seconds)), 3)
        assert reasons_of(messages) == [STARTED, IDLE, IDLE]


async def test_history_that_was_compacted_is_a_named_error(database: Database, tmp_path: Path) -> None:
    await append(database, *"abcde")
    async with watching(database, tmp_path) as w:
        old = w.server.log.resume_token(APP, 1)
        assert await w.server.log.compact(APP, 3) == 3
        code, reason, metadata = await w.refused(resume_token=old)
        assert (code, reason) == (grpc.StatusCode.OUT_OF_RANGE, "EVENT_HISTORY_COMPACTED")
        assert metadata["oldestSequence"] == "4"
        for fields in ({"resume_token": metadata["oldestResumeToken"]}, {"origin": OLDEST}):
            assert texts_of(await read(w.watch(**fields), 3)) == ["d", "e"]


async def test_a_token_of_a_log_that_is_gone_is_a_named_error(database: Database, tmp_path: Path) -> None:
    await append(database, "a")
    async with watching(database, tmp_path) as w:
        for lost in (token.encode("0" * 16, APP, 1), w.server.log.resume_token(APP, 2)):
            code, reason, metadata = await w.refused(resume_token=lost)
            assert (code, reason) == (grpc.StatusCode.OUT_OF_RANGE, "EVENT_HISTORY_LOST")
            assert texts_of(await read(w.watch(resume_token=metadata["oldestResumeToken"]), 2)) == ["a"]


async def test_a_token_that_can_not_be_read_is_refused(database: Database, tmp_path: Path) -> None:
    await add_application(database, "other")
    async with watching(database, tmp_path) as w:
        good = w.server.log.resume_token(APP, 0)
        for bad in (
            "",
            "x",
            "ü" * 20,
            good[:-1],
            good + "A",
            good.lower(),
            w.server.log.resume_token("other", 0),
        ):
            code, reason, _ = await w.refused(resume_token=bad)
            assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_RESUME_TOKEN"), bad


async def test_requests_that_make_no_sense_are_refused(database: Database, tmp_path: Path) -> None:
    async with watching(database, tmp_path) as w:
        cases: list[tuple[dict[str, object], str, str]] = [
            ({"app_id": ""}, "FIELD_REQUIRED", "app_id"),
            ({"app_id": "../etc"}, "INVALID_ID", "app_id"),
            ({"origin": 99}, "INVALID_VALUE", "origin"),
            ({"filter": Filter(types=[1, 77])}, "INVALID_VALUE", "filter.types[1]"),  # type: ignore[list-item]
            (
                {"filter": Filter(types=[event_pb2.EVENT_TYPE_UNSPECIFIED])},
                "INVALID_VALUE",
                "filter.types[0]",
            ),
            ({"filter": Filter(task_ids=["1"] * 1001)}, "INVALID_VALUE", "filter.task_ids"),
            ({"filter": Filter(room_ids=["1"] * 1001)}, "INVALID_VALUE", "filter.room_ids"),
        ]
        for fields, expected, at in cases:
            code, reason, metadata = await w.refused(**fields)
            assert (code, reason, metadata["field"]) == (grpc.StatusCode.INVALID_ARGUMENT, expected, at)
        code, reason, _ = await w.refused(app_id="nobody")
        assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "APPLICATION_NOT_FOUND")
        assert w.server.watch.statistics().streams == 0


async def test_applications_are_apart(database: Database, tmp_path: Path) -> None:
    await add_application(database, "other")
    async with watching(database, tmp_path) as w:
        call = w.watch(origin=OLDEST)
        await read(call, 1)
        await append(database, "theirs", app_id="other")
        await append(database, "ours")
        (message,) = await read(call, 1)
        assert (message.event.warning.message, message.event.sequence) == ("ours", 1)


@pytest.mark.parametrize("state", [task_pb2.TASK_STATE_COMPLETED, task_pb2.TASK_STATE_FAILED])
async def test_a_stream_of_one_task_ends_after_its_last_event(
    database: Database, tmp_path: Path, state: task_pb2.TaskState.ValueType
) -> None:
    await add_tasks(database, ["1", "2"], state=task_pb2.TASK_STATE_FINALIZING)
    await append(database, "of 1", task_id="1")
    async with watching(database, tmp_path, SOON) as w:
        one = w.watch(origin=OLDEST, filter=Filter(task_ids=["1"]))
        await read(one, 2)
        both = w.watch(origin=OLDEST, filter=Filter(task_ids=["1", "2"]))
        without_end = w.watch(
            origin=OLDEST, filter=Filter(task_ids=["1"], types=[event_pb2.EVENT_TYPE_WARNING])
        )
        await end_task(database, "1", state)
        messages = [message for message in await read_all(one) if message.HasField("event")]
        assert await one.code() == grpc.StatusCode.OK
        assert messages[-1].event.task.task.state == state
        last = messages[-1].event.sequence
        for call in (both, without_end):
            await until_sequence_then_idle(call, last)
        # Who resumes after the end, for want of the OK, gets it again.
        resumed = w.watch(resume_token=messages[-1].resume_token, filter=Filter(task_ids=["1"]))
        assert reasons_of(await read_all(resumed)) == [STARTED]
        assert await resumed.code() == grpc.StatusCode.OK
        again = await read_all(w.watch(origin=OLDEST, filter=Filter(task_ids=["1"])))
        assert again[-1] == messages[-1]


async def until_sequence_then_idle(call: Call, sequence: int) -> None:
    """The stream says everything up to `sequence`, then goes on with bookmarks."""
    idle = 0
    async for message in call:
        idle += message.bookmark.reason == IDLE and message.bookmark.sequence >= sequence
        if idle == 2:
            break
    call.cancel()


async def test_a_server_that_stops_says_so_and_when_to_come_again(database: Database, tmp_path: Path) -> None:
    await append(database, "a")
    async with watching(database, tmp_path) as w:
        calls = [w.watch(origin=OLDEST) for _ in range(20)]
        for call in calls:
            assert len(await read(call, 2)) == 2
        stopping = asyncio.create_task(w.server.server.aclose())
        delays = set()
        for call in calls:
            (message,) = await read(call, 1)
            assert (message.bookmark.reason, message.bookmark.sequence) == (DRAINING, 1)
            with pytest.raises(aio.AioRpcError) as error:
                await read(call, 1)
            assert refusal(error.value)[:2] == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
            delays.add(retry_seconds(error.value))
        assert len(delays) > 1
        assert 0.5 <= min(delays) <= max(delays) <= 3
        await stopping
        assert w.server.watch.statistics().streams == 0


def retry_seconds(error: aio.AioRpcError) -> float:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details if detail.Is(retry.DESCRIPTOR))
    delay: Duration = retry.retry_delay
    return delay.seconds + delay.nanos / NANOSECONDS


async def test_an_application_has_so_many_streams_and_no_more(database: Database, tmp_path: Path) -> None:
    await add_application(database, "other")
    async with watching(database, tmp_path, WatchSettings(streams_per_application=2)) as w:
        calls = [w.watch(), w.watch()]
        for call in calls:
            await read(call, 1)
        code, reason, metadata = await w.refused()
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHERS")
        assert metadata == {"appId": APP, "open": "2", "limit": "2"}
        await read(w.watch(app_id="other"), 1)
        calls[0].cancel()
        while w.server.watch.statistics().streams > 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert reasons_of(await read(w.watch(), 1)) == [STARTED]


async def test_a_watcher_that_reads_nothing_is_let_go_and_slows_nobody(
    database: Database, tmp_path: Path
) -> None:
    settings = WatchSettings(stall_seconds=1)
    async with watching(database, tmp_path, settings, tail_events=16) as w, w.server.stub() as other:
        stalled = other.WatchEvents(Request(app_id=APP, origin=OLDEST))
        texts = [f"{number}{'x' * 100_000}" for number in range(200)]
        quick = asyncio.create_task(read(w.watch(origin=OLDEST), len(texts) + 1))
        await append(database, *texts)
        assert texts_of(await quick) == texts
        while w.server.watch.statistics().streams > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        # What it was sent is still there, and counts.
        assert w.server.watch.statistics().stalled == 1
        got: list[Response] = []
        with pytest.raises(aio.AioRpcError) as error:
            await read_into(got, stalled)
        await eventually(lambda: w.server.watch.statistics().stalled == 0, "it is gone")
        assert refusal(error.value)[:2] == (grpc.StatusCode.UNAVAILABLE, "STREAM_STALLED")
        # What came has no hole, and the rest comes after a resume.
        assert 1 < len(got) < len(texts)
        assert texts_of(got) == texts[: len(got) - 1]
        rest = w.watch(resume_token=got[-1].resume_token)
        assert texts_of(await read(rest, len(texts) - len(got) + 2)) == texts[len(got) - 1 :]


async def test_who_reads_nothing_has_no_more_streams_than_others(database: Database, tmp_path: Path) -> None:
    settings = WatchSettings(stall_seconds=1, streams_per_application=2)
    async with watching(database, tmp_path, settings) as w:
        async with w.server.stub() as other:
            stalled = [other.WatchEvents(Request(app_id=APP, origin=OLDEST)) for _ in range(2)]
            for call in stalled:
                assert reasons_of(await read(call, 1)) == [STARTED]
            await append(database, *["x" * 1_000_000] * 20)
            await eventually(lambda: w.server.watch.statistics().stalled == 2, "both are let go")
            _, reason, metadata = await w.refused()
            assert (reason, metadata["open"]) == ("TOO_MANY_WATCHERS", "2")
        # Their connection is gone, and so are they.
        await eventually(lambda: w.server.watch.statistics().stalled == 0, "they are gone")
        assert reasons_of(await read(w.watch(), 1)) == [STARTED]


async def test_a_server_that_stops_waits_for_nobody_who_reads_nothing(
    database: Database, tmp_path: Path
) -> None:
    async with watching(database, tmp_path) as w, w.server.stub() as other:
        stalled = other.WatchEvents(Request(app_id=APP, origin=OLDEST))
        assert reasons_of(await read(stalled, 1)) == [STARTED]
        quick = w.watch()
        await read(quick, 1)
        await append(database, *["x" * 1_000_000] * 20)
        assert len(await read(quick, 20)) == 20
        # Less than a server waits for calls.
        async with asyncio.timeout(4):
            await w.server.server.aclose()
        assert reasons_of(await read(quick, 1)) == [DRAINING]


@pytest.fixture
def uncollected() -> Iterator[None]:
    """No garbage collection, which takes half of the time when one process has servers and clients of thousands."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
async def test_five_thousand_streams_at_once_all_open(database: Database, tmp_path: Path) -> None:
    count = 5000
    async with watching(database, tmp_path) as w:
        calls = [w.watch() for _ in range(count)]
        for call in calls:
            assert reasons_of(await read(call, 1)) == [STARTED]
        assert w.server.watch.statistics().streams == count
        await append(database, "to all")
        for call in calls:
            assert texts_of(await read(call, 1)) == ["to all"]
