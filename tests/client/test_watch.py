"""A watch hands out every event once over whatever happens to its streams; asyncio and threads alike."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence

import grpc
import pytest

from roomtape.client import (
    Client,
    HistoryCompacted,
    HistoryLost,
    InvalidArgument,
    NotFound,
    SyncClient,
    SyncWatch,
    Unavailable,
    Watch,
)
from roomtape.v1 import error_pb2, event_pb2, task_pb2
from roomtape_service.errors import Refusal
from tests.client.conftest import QUICK
from tests.client.proxy import tcp_proxy
from tests.client.scripted import Context, Fault, Play, Scripted, abort, events, hang, refuse

# The shortest that there is: after 2.5 s of silence the stream is dead.
SHORT_SECONDS = 1.0


class Collector:
    """Either kind of watch, all of it at once."""

    def __init__(self, make: Callable[..., Watch | SyncWatch]) -> None:
        self._make = make
        self.watch: Watch | SyncWatch | None = None

    async def __call__(self, **options: object) -> Sequence[int]:
        """The sequences of a watch to its end."""
        watch = self.watch = self._make("app", **options)
        if isinstance(watch, Watch):
            async with watch:
                return [event.sequence async for event in watch]
        return await asyncio.to_thread(self._drain, watch)

    def _drain(self, watch: SyncWatch) -> Sequence[int]:
        with watch:
            return [event.sequence for event in watch]


@pytest.fixture(params=["asyncio", "threads"])
async def collect(
    request: pytest.FixtureRequest, server: Scripted, client: Client
) -> AsyncIterator[Collector]:
    if request.param == "asyncio":
        yield Collector(client.watch_events)
        return
    with SyncClient(server.target, retry=QUICK) as sync_client:
        yield Collector(sync_client.watch_events)


def refusing(reason: error_pb2.ErrorReason.ValueType, **metadata: str) -> Fault:
    async def fault(context: Context) -> None:
        await refuse(context, Refusal(reason, "told to", metadata=metadata, retry_after_seconds=0.001))

    return fault


BREAKS = {
    "unavailable": abort(grpc.StatusCode.UNAVAILABLE),
    "cancelled": abort(grpc.StatusCode.CANCELLED),
    "deadline": abort(grpc.StatusCode.DEADLINE_EXCEEDED),
    "internal": abort(grpc.StatusCode.INTERNAL),
    "draining": refusing(error_pb2.ERROR_REASON_DRAINING),
    "stalled": refusing(error_pb2.ERROR_REASON_STREAM_STALLED),
}


@pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
async def test_a_broken_stream_goes_on_where_it_was(
    server: Scripted, collect: Collector, fault: Fault
) -> None:
    server.watching.events = events(9)
    server.watching.plays.extend(
        [Play(count=2, end=fault), Play(count=0, end=fault), Play(count=4, end=fault)]
    )
    assert await collect(origin=event_pb2.WATCH_ORIGIN_OLDEST) == list(range(1, 10))
    requests = server.watching.requests
    assert requests[0].origin == event_pb2.WATCH_ORIGIN_OLDEST
    assert [request.resume_token for request in requests] == ["", "2", "2", "6"]
    assert {request.app_id for request in requests} == {"app"}


async def test_what_comes_again_is_dropped(server: Scripted, collect: Collector) -> None:
    server.watching.events = events(8)
    fault = abort(grpc.StatusCode.UNAVAILABLE)
    server.watching.plays.extend(
        [Play(count=5, end=fault), Play(repeats=3, count=5, end=fault), Play(repeats=8)]
    )
    assert await collect(after="0") == list(range(1, 9))
    assert collect.watch is not None
    statistics = collect.watch.statistics()
    assert (statistics.events, statistics.duplicates, statistics.resumes, statistics.bookmarks) == (
        8,
        10,
        2,
        3,
    )
    assert collect.watch.resume_token == "8"


async def test_bookmarks_move_the_token_and_newer_messages_do_no_harm(
    server: Scripted, collect: Collector
) -> None:
    server.watching.events = events(3)
    server.watching.plays.extend(
        [Play(count=1, newer=True, bookmark=True, end=abort(grpc.StatusCode.INTERNAL)), Play()]
    )
    filter = event_pb2.EventFilter(room_ids=["r"])
    assert await collect(after="0", filter=filter, bookmark_seconds=0.01) == [1, 2, 3]
    for request in server.watching.requests:
        assert request.filter == filter
        assert request.bookmark_interval.ToTimedelta().total_seconds() == SHORT_SECONDS


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (error_pb2.ERROR_REASON_EVENT_HISTORY_COMPACTED, HistoryCompacted),
        (error_pb2.ERROR_REASON_EVENT_HISTORY_LOST, HistoryLost),
    ],
)
async def test_history_that_is_gone_is_said(
    server: Scripted,
    collect: Collector,
    reason: error_pb2.ErrorReason.ValueType,
    kind: type[HistoryCompacted | HistoryLost],
) -> None:
    server.watching.events = events(3)
    gone = Refusal(reason, "gone", metadata={"oldestResumeToken": "1"})
    server.watching.plays.extend([Play(count=1, end=abort(grpc.StatusCode.UNAVAILABLE)), Play(refusal=gone)])
    with pytest.raises(kind) as caught:
        await collect(after="0")
    assert caught.value.oldest_resume_token == "1"
    assert await collect(after=caught.value.oldest_resume_token) == [2, 3]


async def test_other_errors_end_the_watch(server: Scripted, collect: Collector) -> None:
    for reason, kind in (
        (error_pb2.ERROR_REASON_INVALID_RESUME_TOKEN, InvalidArgument),
        (error_pb2.ERROR_REASON_APPLICATION_NOT_FOUND, NotFound),
    ):
        server.watching.plays.append(Play(refusal=Refusal(reason, "no")))
        with pytest.raises(kind):
            await collect()
    assert len(server.watching.requests) == 2


async def test_an_outage_may_be_bounded(server: Scripted, collect: Collector) -> None:
    server.watching.events = events(1)
    fault = abort(grpc.StatusCode.UNAVAILABLE)
    refusal = Refusal(error_pb2.ERROR_REASON_DRAINING, "stopping", retry_after_seconds=30)
    server.watching.plays.extend([Play(end=fault), Play(end=fault), Play(refusal=refusal)])
    with pytest.raises(Unavailable):
        await collect(origin=event_pb2.WATCH_ORIGIN_OLDEST, outage_seconds=20)
    assert len(server.watching.requests) == 3


async def test_a_silent_stream_is_left(server: Scripted, collect: Collector) -> None:
    server.watching.events = events(2)
    server.watching.plays.extend([Play(count=1, end=hang), Play()])
    begun = time.monotonic()
    assert await collect(after="0", bookmark_seconds=SHORT_SECONDS) == [1, 2]
    assert 2.4 < time.monotonic() - begun < 10


async def test_connections_that_are_cut(server: Scripted) -> None:
    server.watching.events = events(6)
    server.watching.plays.extend([Play(count=2, end=hang), Play(count=2, end=hang), Play()])
    seen = []
    async with (
        tcp_proxy(server.target) as proxy,
        Client(f"127.0.0.1:{proxy.port}", retry=QUICK) as client,
        client.watch_events("app", after="0", bookmark_seconds=SHORT_SECONDS) as watch,
    ):
        async for event in watch:
            seen.append(event.sequence)
            if event.sequence in (2, 4):
                proxy.cut()
    assert seen == [1, 2, 3, 4, 5, 6]
    assert proxy.connections == 3


async def test_a_cancelled_step_takes_nothing_out(server: Scripted, client: Client) -> None:
    server.watching.events = events(3)
    server.watching.plays.extend([Play(count=1, end=hang), Play()])
    async with client.watch_events("app", after="0") as watch:
        assert (await anext(watch)).sequence == 1
        step = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        step.cancel()
        with pytest.raises(asyncio.CancelledError):
            await step
        assert [event.sequence async for event in watch] == [2, 3]


async def test_closing_ends_the_iteration(server: Scripted, client: Client) -> None:
    server.watching.events = events(1)
    server.watching.plays.extend([Play(end=hang), Play(end=hang)])
    watch = client.watch_events("app", after="0")
    assert (await anext(watch)).sequence == 1
    await watch.aclose()
    await watch.aclose()
    assert [event async for event in watch] == []


async def test_another_thread_may_close_a_watch(server: Scripted) -> None:
    server.watching.events = events(1)
    server.watching.plays.append(Play(end=hang))
    got_one = threading.Event()

    def watching(watch: SyncWatch) -> int:
        count = 0
        for _ in watch:
            count += 1
            got_one.set()
        return count

    def closing(watch: SyncWatch) -> None:
        assert got_one.wait(10)
        watch.close()

    with SyncClient(server.target, retry=QUICK) as sync_client:
        watch = sync_client.watch_events("app", after="0")
        count, _ = await asyncio.gather(asyncio.to_thread(watching, watch), asyncio.to_thread(closing, watch))
    assert count == 1
    assert not any(thread.name == "roomtape-watchdog" for thread in threading.enumerate())


@pytest.mark.parametrize("kind", ["asyncio", "threads"])
async def test_waiting_for_a_task_looks_after_the_watch_is_registered(
    server: Scripted, client: Client, kind: str
) -> None:
    server.watching.events = events(2)
    server.watching.plays.append(Play(end=hang))
    server.recording.states.extend(
        [task_pb2.TASK_STATE_RECORDING, task_pb2.TASK_STATE_FINALIZING, task_pb2.TASK_STATE_COMPLETED]
    )
    if kind == "asyncio":
        reply = await client.wait_until_complete("app", "7")
    else:
        with SyncClient(server.target, retry=QUICK) as sync_client:
            reply = await asyncio.to_thread(sync_client.wait_until_complete, "app", "7")
    assert reply.task.state == task_pb2.TASK_STATE_COMPLETED
    assert len(server.recording.requests) == 3
    assert list(server.watching.requests[0].filter.task_ids) == ["7"]
