"""What calls of the stubs get on their way: a request id, the key, a deadline, other tries."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import pytest

from roomtape.client import (
    Client,
    ClientClosed,
    DeadlineExceeded,
    FailedPrecondition,
    ResourceExhausted,
    RetrySettings,
    SyncClient,
    TlsSettings,
    Unavailable,
)
from roomtape.client.backoff import Backoff
from roomtape.client.calls import CallPolicy
from roomtape.client.errors import ErrorDetails
from roomtape.v1 import (
    application_pb2,
    error_pb2,
    event_pb2,
    file_pb2,
    ingest_pb2,
    room_pb2,
    task_pb2,
    webhook_pb2,
)
from roomtape_service.errors import Refusal
from tests.client.conftest import QUICK
from tests.client.scripted import Context, Fault, Play, Scripted, abort, hang, refuse, scripted_server
from tests.support.certificates import make_certificates

Stop = Callable[[task_pb2.StopRecordRequest], "asyncio.Future[task_pb2.StopRecordResponse]"]

# What changes nothing and so may be sent twice without a request id.
READS = {
    "CheckStorage",
    "CreatePlaybackUrl",
    "DescribeRecordInfo",
    "DescribeRoom",
    "DescribeTaskInfo",
    "GetApplication",
    "GetFile",
    "GetManifest",
    "GetWebhook",
    "ListApplications",
    "ListEvents",
    "ListFiles",
    "ListRooms",
    "ListTasks",
    "ListWebhookDeliveries",
    "ListWebhooks",
}


@pytest.fixture(params=["asyncio", "threads"])
async def stop(request: pytest.FixtureRequest, server: Scripted, client: Client) -> AsyncIterator[Stop]:
    """StopRecord of either client."""
    if request.param == "asyncio":
        yield lambda message: asyncio.ensure_future(_awaited(client, message))
        return
    with SyncClient(server.target, retry=QUICK) as sync_client:
        call = sync_client.recording.StopRecord
        yield lambda message: asyncio.ensure_future(asyncio.to_thread(call, message))


async def _awaited(client: Client, message: task_pb2.StopRecordRequest) -> task_pb2.StopRecordResponse:
    return await client.recording.StopRecord(message)


def refusing(reason: error_pb2.ErrorReason.ValueType, retry_after: float | None = None) -> Fault:
    async def fault(context: Context) -> None:
        await refuse(context, Refusal(reason, "told to", retry_after_seconds=retry_after))

    return fault


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED], ids=lambda code: code.name
)
async def test_what_no_server_took_is_sent_again_as_it_was(
    server: Scripted, stop: Stop, code: grpc.StatusCode
) -> None:
    server.recording.faults.extend([abort(code), abort(code)])
    message = task_pb2.StopRecordRequest(app_id="app", task_id="1")
    reply = await stop(message)
    assert reply.task.task_id == "1"
    sent = server.recording.requests
    assert len(sent) == 3
    assert sent[0] == sent[1] == sent[2]
    assert len(sent[0].request_id) == 36
    assert message == task_pb2.StopRecordRequest(app_id="app", task_id="1")


async def test_each_call_has_an_id_of_its_own_and_a_given_one_stays(server: Scripted, stop: Stop) -> None:
    await stop(task_pb2.StopRecordRequest(task_id="1"))
    await stop(task_pb2.StopRecordRequest(task_id="1"))
    await stop(task_pb2.StopRecordRequest(task_id="1", request_id="mine"))
    first, second, third = (request.request_id for request in server.recording.requests)
    assert len({first, second, third}) == 3
    assert third == "mine"


async def test_answers_are_not_asked_for_twice(server: Scripted, stop: Stop) -> None:
    server.recording.faults.extend([refusing(error_pb2.ERROR_REASON_TASK_ENDED)])
    with pytest.raises(FailedPrecondition):
        await stop(task_pb2.StopRecordRequest())
    server.recording.faults.extend([refusing(error_pb2.ERROR_REASON_RATE_LIMITED, 0.001)])
    with pytest.raises(ResourceExhausted):
        await stop(task_pb2.StopRecordRequest())
    assert len(server.recording.requests) == 2


async def test_tries_end(server: Scripted, stop: Stop) -> None:
    server.recording.faults.extend([refusing(error_pb2.ERROR_REASON_DRAINING)] * 10)
    with pytest.raises(Unavailable) as caught:
        await stop(task_pb2.StopRecordRequest())
    assert caught.value.reason == error_pb2.ERROR_REASON_DRAINING
    assert len(server.recording.requests) == QUICK.attempts


async def test_nobody_there_is_unavailable() -> None:
    async with Client("127.0.0.1:1", retry=QUICK) as client:
        with pytest.raises(Unavailable):
            await client.recording.StopRecord(task_pb2.StopRecordRequest())


async def test_one_deadline_for_all_tries(server: Scripted) -> None:
    server.recording.faults.extend([abort(grpc.StatusCode.UNAVAILABLE), hang])
    begun = time.monotonic()
    async with Client(server.target, timeout_seconds=0.3, retry=QUICK) as client:
        with pytest.raises(DeadlineExceeded):
            await client.recording.StopRecord(task_pb2.StopRecordRequest())
    assert time.monotonic() - begun < 2
    assert len(server.recording.requests) == 2


async def test_a_wait_beyond_the_deadline_is_not_begun(server: Scripted, client: Client) -> None:
    server.recording.faults.extend([refusing(error_pb2.ERROR_REASON_DRAINING, retry_after=60)])
    with pytest.raises(Unavailable) as caught:
        await client.recording.StopRecord(task_pb2.StopRecordRequest(), timeout=5)
    assert caught.value.retry_after == 60


async def test_a_caller_who_cancels_gets_no_error_of_ours(server: Scripted, client: Client) -> None:
    server.recording.faults.extend([hang])
    call = asyncio.ensure_future(_awaited(client, task_pb2.StopRecordRequest()))
    await server.recording.asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert len(server.recording.requests) == 1


async def test_the_key_goes_with_every_call(server: Scripted) -> None:
    async with Client(server.target, api_key="k1", retry=QUICK) as client:
        await client.recording.StopRecord(task_pb2.StopRecordRequest())
        await client.recording.StopRecord(
            task_pb2.StopRecordRequest(), metadata=(("authorization", "Bearer other"), ("x-more", "1"))
        )
        async with client.watch_events("app") as watch:
            await watch.start()
        async for _ in client.watch.WatchEvents(event_pb2.WatchEventsRequest()):
            pass
        async with client.publisher("app", "room", "user", [ingest_pb2.TrackOffer(track_id="audio")]):
            pass
        assert "k1" not in repr(client._endpoint)
    keys = [each["authorization"] for each in server.recording.metadata + server.watching.metadata]
    assert keys == ["Bearer k1", "Bearer other", "Bearer k1", "Bearer k1"]
    assert server.recording.metadata[1]["x-more"] == "1"
    assert server.ingest.lives[0].metadata["authorization"] == "Bearer k1"


async def test_tls(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path, ["localhost"])
    credentials = grpc.ssl_server_credentials(
        [(certificates.key.read_bytes(), certificates.certificate.read_bytes())]
    )
    tls = TlsSettings(root_certificates=certificates.authority.read_bytes(), server_name="localhost")
    async with scripted_server(credentials) as server:
        async with Client(server.target, tls=tls, retry=QUICK) as client:
            await client.recording.StopRecord(task_pb2.StopRecordRequest())
            async with client.publisher("app", "room", "user", [ingest_pb2.TrackOffer(track_id="audio")]):
                pass
        with SyncClient(server.target, tls=tls, retry=QUICK) as sync_client:
            await asyncio.to_thread(sync_client.recording.StopRecord, task_pb2.StopRecordRequest())
        async with Client(server.target, tls=replace(tls, root_certificates=None), retry=QUICK) as client:
            with pytest.raises(Unavailable):
                await client.recording.StopRecord(task_pb2.StopRecordRequest())
    assert len(server.recording.requests) == 2


async def test_lists_go_over_their_pages(server: Scripted, client: Client) -> None:
    request = task_pb2.ListTasksRequest(app_id="app", page_size=2)
    assert [task.task_id async for task in client.list_tasks(request)] == ["0", "1", "2", "3", "4", "5"]
    assert request == task_pb2.ListTasksRequest(app_id="app", page_size=2)

    def ids() -> list[str]:
        with SyncClient(server.target, retry=QUICK) as sync_client:
            return [task.task_id for task in sync_client.list_tasks(request)]

    assert await asyncio.to_thread(ids) == ["0", "1", "2", "3", "4", "5"]
    assert [each.page_token for each in server.recording.requests] == ["", "1", "2"] * 2
    assert {each.page_size for each in server.recording.requests} == {2}


def test_every_call_is_safe_to_be_sent_twice() -> None:
    files = (application_pb2, event_pb2, file_pb2, ingest_pb2, room_pb2, task_pb2, webhook_pb2)
    reads = {
        method.name
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if not method.server_streaming and "request_id" not in method.input_type.fields_by_name
    }
    assert reads == READS


@dataclass
class Draws:
    """Draws the upper bound, and keeps all bounds."""

    bounds: list[float] = field(default_factory=list)

    def __call__(self, low: float, high: float) -> float:
        assert low == 0
        self.bounds.append(high)
        return high


def test_waits_double_to_their_longest() -> None:
    draws = Draws()
    backoff = Backoff(RetrySettings(), draws)
    waits = [backoff.next_seconds() for _ in range(9)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10])
    assert backoff.next_seconds(retry_after=12) == 12
    backoff.reset()
    assert backoff.next_seconds(retry_after=0.05) == pytest.approx(0.1)
    for _ in range(2_000):
        backoff.next_seconds()
    assert draws.bounds[-1] == 10


def test_a_server_that_says_when_is_not_asked_before() -> None:
    attempts = CallPolicy(uniform=lambda low, high: low).attempts(None)
    error = Unavailable(grpc.StatusCode.UNAVAILABLE, "stopping", ErrorDetails(retry_after=3.0))
    assert attempts.wait_seconds(error) == 3.0


async def test_closing_the_client_ends_what_runs_and_says_so(server: Scripted) -> None:
    server.recording.faults.append(hang)
    server.watching.plays.extend([Play(end=hang), Play(end=hang)])
    client = Client(server.target, retry=QUICK)
    publisher = client.publisher("app", "room", "user", [ingest_pb2.TrackOffer(track_id="audio")])
    await publisher.open()
    watch = client.watch_events("app")
    await watch.start()
    raw = client.watch.WatchEvents(event_pb2.WatchEventsRequest())
    await raw.read()
    waiting = [
        asyncio.ensure_future(each)
        for each in (anext(watch), raw.read(), _awaited(client, task_pb2.StopRecordRequest()))
    ]
    await server.recording.asked.wait()
    await client.aclose()
    for each in waiting:
        with pytest.raises(ClientClosed):
            await each
    with pytest.raises(ClientClosed):
        await publisher.close()


async def test_closing_the_client_of_threads_ends_its_watches(server: Scripted) -> None:
    server.watching.plays.append(Play(end=hang))
    sync_client = SyncClient(server.target, retry=QUICK)
    watch = sync_client.watch_events("app")
    await asyncio.to_thread(watch.start)
    step = asyncio.ensure_future(asyncio.to_thread(next, watch))
    sync_client.close()
    with pytest.raises(ClientClosed):
        await step
