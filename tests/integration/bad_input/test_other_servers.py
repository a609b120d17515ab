"""What only a server with other settings refuses: keys, rates, streams, other logs; and what a stopping one says."""

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from grpc import aio

from roomtape.client import Client
from roomtape.v1 import (
    application_pb2,
    event_pb2,
    event_pb2_grpc,
    ingest_pb2,
    media_pb2,
    room_pb2,
    storage_pb2,
    task_pb2,
)
from tests.integration.bad_input.calling import Metadata, call, refused, request_of
from tests.integration.bad_input.cases import covers
from tests.integration.bad_input.contract import requests_with_id, rpcs
from tests.integration.bad_input.publishing import RawPublish, opening
from tests.integration.bad_input.refusals import Expected, read_refusal
from tests.integration.bad_input.witness import Witness, offer_of
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="package")

KEY, MASTER_KEY = "a-key-of-app", "a-key-of-all"
BURST = 50
STREAMS = 3
ALL = tuple(rpcs())
OF_AN_APPLICATION = tuple(rpc for rpc in ALL if request_of(rpc, "other")[1])
LIMITED = tuple(rpc for rpc in requests_with_id() if rpc.startswith("RecordingService."))


def bearer(key: str) -> Metadata:
    return (("authorization", f"Bearer {key}"),)


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def strict(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """A server with keys and low limits."""
    digests = {key: hashlib.sha256(key.encode()).hexdigest() for key in (KEY, MASTER_KEY)}
    async with running_server(
        tmp_path_factory.mktemp("strict") / "data",
        api_keys=f"{digests[KEY]}=app {digests[MASTER_KEY]}=*",
        record_calls_per_second=0.1,
        record_calls_burst=BURST,
        watch_streams_per_application=STREAMS,
    ) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def channel(strict: ServerProcess) -> AsyncIterator[aio.Channel]:
    """To the strict server, while a witness publishes there."""
    async with Client(strict.target, api_key=KEY) as client, Witness(client) as witness:
        async with aio.insecure_channel(strict.target) as channel:
            yield channel
        await witness.goes_on()
        await witness.check()


@covers(ALL, "API_KEY_INVALID")
@pytest.mark.parametrize("rpc", ALL)
async def test_no_call_is_answered_without_a_key(channel: aio.Channel, rpc: str) -> None:
    request, _ = request_of(rpc, "app")
    for metadata in ((), bearer("another"), (("authorization", KEY),)):
        Expected("API_KEY_INVALID").check(await refused(channel, rpc, request, metadata))


@covers(OF_AN_APPLICATION, "APPLICATION_FORBIDDEN")
@pytest.mark.parametrize("rpc", OF_AN_APPLICATION)
async def test_a_key_reaches_its_own_application_only(channel: aio.Channel, rpc: str) -> None:
    request, field = request_of(rpc, "other")
    if rpc == "IngestService.Publish":
        assert isinstance(request, ingest_pb2.PublishRequest)
        request.open.room_id = "r"
    told = await refused(channel, rpc, request, bearer(KEY))
    Expected("APPLICATION_FORBIDDEN", (field,), {"appId": "other"}).check(told)


@covers(LIMITED, "RATE_LIMITED")
async def test_changes_of_tasks_are_limited_for_each_application(channel: aio.Channel) -> None:
    key = bearer(MASTER_KEY)
    for _ in range(BURST + 1):
        told = await refused(channel, "RecordingService.StopRecord", stop("busy"), key)
        if told.reason == "RATE_LIMITED":
            break
    for rpc in LIMITED:
        told = await refused(channel, rpc, request_of(rpc, "busy")[0], key)
        Expected("RATE_LIMITED", metadata={"appId": "busy", "burst": str(BURST)}).check(told)
        assert told.retry_seconds is not None
        assert 0 < told.retry_seconds <= 10
    for app_id in ("app", "other"):
        told = await refused(channel, "RecordingService.StopRecord", stop(app_id), key)
        assert told.reason == "TASK_NOT_FOUND"
    told = await refused(channel, "RecordingService.ListTasks", task_pb2.ListTasksRequest(app_id="busy"), key)
    assert told.reason == "APPLICATION_NOT_FOUND"


def stop(app_id: str) -> Message:
    return task_pb2.StopRecordRequest(app_id=app_id, task_id="1")


@covers(("WatchService.WatchEvents", "WatchService.ListEvents"), "TOO_MANY_WATCHERS")
async def test_an_application_has_so_many_watchers_and_no_more(channel: aio.Channel) -> None:
    stub = event_pb2_grpc.WatchServiceStub(channel)
    request = event_pb2.WatchEventsRequest(app_id="app")
    calls = [stub.WatchEvents(request, metadata=tuple(bearer(KEY))) for _ in range(STREAMS)]
    try:
        for each in calls:
            await each.read()
        waiting = event_pb2.ListEventsRequest(app_id="app", wait=Duration(seconds=1))
        expected = {"appId": "app", "open": str(STREAMS), "limit": str(STREAMS)}
        for rpc, another in (("WatchEvents", request), ("ListEvents", waiting)):
            told = await refused(channel, f"WatchService.{rpc}", another, bearer(KEY))
            Expected("TOO_MANY_WATCHERS", metadata=expected).check(told)
        # A page that is there at once holds nothing open.
        await call(channel, "WatchService.ListEvents", event_pb2.ListEventsRequest(app_id="app"), bearer(KEY))
    finally:
        for each in calls:
            each.cancel()

    async def is_free() -> bool:
        try:
            await call(channel, "WatchService.WatchEvents", request, bearer(KEY))
        except aio.AioRpcError:
            return False
        return True

    await eventually(is_free, "a stream is free again")


@covers("WatchService.WatchEvents", "EVENT_HISTORY_LOST")
async def test_a_token_of_another_log_is_a_named_error(client: Client, channel: aio.Channel) -> None:
    listed = await client.recording.ListTasks(task_pb2.ListTasksRequest(app_id="app"))
    request = event_pb2.WatchEventsRequest(app_id="app", resume_token=listed.resume_token)
    told = await refused(channel, "WatchService.WatchEvents", request, bearer(KEY))
    Expected("EVENT_HISTORY_LOST", metadata={"oldestSequence": "1"}).check(told)
    request.resume_token = told.metadata["oldestResumeToken"]
    first = await call(channel, "WatchService.WatchEvents", request, bearer(KEY))
    assert isinstance(first, event_pb2.WatchEventsResponse)
    assert first.bookmark.reason == event_pb2.BOOKMARK_REASON_STARTED


@covers("RecordingService.ListTasks", "INTERNAL")
async def test_a_defect_says_nothing_of_itself(strict: ServerProcess, channel: aio.Channel) -> None:
    with closing(sqlite3.connect(strict.data_dir / "roomtape.db", timeout=10)) as database:
        database.execute("ALTER TABLE tasks RENAME TO secret_tasks")
        try:
            request = task_pb2.ListTasksRequest(app_id="app")
            told = await refused(channel, "RecordingService.ListTasks", request, bearer(KEY))
        finally:
            database.execute("ALTER TABLE secret_tasks RENAME TO tasks")
    Expected("INTERNAL").check(told)
    assert "tasks" not in told.message
    await eventually(
        lambda: told.metadata["requestId"] in strict.log_path.read_text("utf-8"), "the log has the cause"
    )
    await call(channel, "RecordingService.ListTasks", request, bearer(KEY))


@covers(ALL, "DRAINING")
async def test_a_stopping_server_says_so_on_every_call(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        with closing(writer):
            await reader.read()

    silent = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with (
        silent,
        running_server(tmp_path / "data") as server,
        aio.insecure_channel(server.target) as channel,
        RawPublish(channel) as publisher,
    ):
        await call(channel, "RoomService.CreateRoom", room_pb2.CreateRoomRequest(app_id="app", room_id="r"))
        await publisher.open(opening("r", "ada", [offer_of(media_pb2.CODEC_PCM_S16LE)]))
        watching = event_pb2_grpc.WatchServiceStub(channel).WatchEvents(
            event_pb2.WatchEventsRequest(app_id="app")
        )
        await watching.read()
        # A call that is still running keeps the server from ending.
        running = asyncio.create_task(call(channel, "ApplicationService.CheckStorage", check_at(port)))
        await asked.wait()
        stopping = asyncio.create_task(server.stop())
        assert (await publisher.goodbye()).reason == ingest_pb2.GOODBYE_REASON_DRAINING
        last = await watching.read()
        assert isinstance(last, event_pb2.WatchEventsResponse)
        assert last.bookmark.reason == event_pb2.BOOKMARK_REASON_DRAINING
        with pytest.raises(aio.AioRpcError) as ended:
            await watching.read()
        for told in (
            read_refusal(ended.value),
            *[await refused(channel, rpc, request_of(rpc, "app")[0]) for rpc in ALL],
        ):
            Expected("DRAINING").check(told)
            assert told.retry_seconds is not None
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert await stopping == 0


def check_at(port: int) -> Message:
    """A check of a store on this machine."""
    store = storage_pb2.ObjectStore(
        vendor=storage_pb2.STORAGE_VENDOR_S3,
        bucket="bucket",
        region="us-east-1",
        endpoint=f"http://127.0.0.1:{port}",
        path_style=True,
        credentials=storage_pb2.StorageCredentials(
            access_key_id="key", secret_access_key=storage_pb2.Secret(value="secret")
        ),
    )
    storage = storage_pb2.StorageSettings(object_store=store)
    return application_pb2.CheckStorageRequest(app_id="app", storage=storage)
