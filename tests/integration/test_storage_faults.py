"""Stores that hang, throttle, lose answers and lie."""

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from roomtape.v1 import storage_pb2
from roomtape_service.storage.s3 import S3Limits
from roomtape_service.storage.store import ObjectDiffers, Store, StoreRefused, StoreUnavailable
from tests.support.stores import make_stores
from tests.support.waiting import eventually
from tests.support.wire import Fault, WireServer, wire_server

BUCKET = "tapes-1250000000"
HOST = "*.cos.ap-guangzhou.myqcloud.com"
KEY = "app_room_user/a.wav"
SMALL_BYTES = 1000
LARGE_BYTES = (8 << 20) + 1
PATIENT = S3Limits(first_wait_seconds=0.001)
QUICK = S3Limits(call_seconds=0.3, least_bytes_per_second=64 << 20, attempts=2, first_wait_seconds=0.001)


def _settings(endpoint: str = "", path_style: bool | None = None) -> storage_pb2.StorageSettings:
    return storage_pb2.StorageSettings(
        object_store=storage_pb2.ObjectStore(
            vendor=storage_pb2.STORAGE_VENDOR_COS,
            bucket=BUCKET,
            region="ap-guangzhou",
            endpoint=endpoint,
            path_style=path_style,
            credentials=storage_pb2.StorageCredentials(
                access_key_id="AKID", secret_access_key=storage_pb2.Secret(value="secret")
            ),
        )
    )


@asynccontextmanager
async def _faulty(folder: Path, fault: Fault) -> AsyncIterator[tuple[Store, WireServer]]:
    """A store whose server answers with `fault`."""
    async with wire_server(folder, [HOST], fault) as server:
        stores = make_stores(folder, authority=server.authority, limits=PATIENT, port=server.port)
        try:
            yield stores.store(_settings()), server
        finally:
            await stores.aclose()


async def _put(store: Store, folder: Path, size_bytes: int) -> None:
    source = folder / "source"
    source.write_bytes(bytes(size_bytes))
    await store.put(KEY, source, hashlib.sha256(bytes(size_bytes)).hexdigest(), "audio/wav")


def _error(status: int, code: str, message: str = "as told") -> web.Response:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return web.Response(status=status, text=text, content_type="application/xml")


def _connections(port: int) -> list[object]:
    """Our connections to the port."""
    found = psutil.Process().net_connections("tcp4")
    return [connection for connection in found if connection.raddr[1:] == (port,)]


def _is_complete(request: web.Request) -> bool:
    return request.method == "POST" and "uploadId" in request.query


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are taken, and nobody ever reads or writes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("size_bytes", [SMALL_BYTES, 8 << 20, LARGE_BYTES])
async def test_a_server_that_hangs_is_left(tmp_path: Path, silent_port: int, size_bytes: int) -> None:
    stores = make_stores(tmp_path, limits=QUICK, unread_seconds=1.0)
    store = stores.store(_settings(f"http://127.0.0.1:{silent_port}", path_style=True))
    try:
        async with asyncio.timeout(10):
            with pytest.raises(StoreUnavailable) as caught:
                await _put(store, tmp_path, size_bytes)
    finally:
        await stores.aclose()
    assert caught.value.code == "Timeout"
    await eventually(lambda: not _connections(silent_port), "no connection is kept with what was not sent")


@pytest.mark.parametrize("size_bytes", [SMALL_BYTES, LARGE_BYTES])
@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (429, "TooManyRequests"), (500, "InternalError")]
)
async def test_throttling_is_waited_out(tmp_path: Path, size_bytes: int, status: int, code: str) -> None:
    left = {"PUT": 3, "HEAD": 1, "POST": 2}

    def fault(request: web.Request) -> web.Response | None:
        left[request.method] = left.get(request.method, 0) - 1
        return _error(status, code) if left[request.method] >= 0 else None

    async with _faulty(tmp_path, fault) as (store, server):
        await _put(store, tmp_path, size_bytes)
        assert sum(request.method == "PUT" for request in server.requests) >= 4


async def test_patience_ends(tmp_path: Path) -> None:
    async with _faulty(tmp_path, lambda request: _error(503, "SlowDown")) as (store, server):
        with pytest.raises(StoreUnavailable) as caught:
            await _put(store, tmp_path, SMALL_BYTES)
        assert caught.value.code == "SlowDown"
        assert len(server.requests) == PATIENT.attempts


async def test_what_no_waiting_helps_is_not_tried_again(tmp_path: Path) -> None:
    def fault(request: web.Request) -> web.Response:
        return _error(403, "AccessDenied")

    async with _faulty(tmp_path, fault) as (store, server):
        with pytest.raises(StoreRefused):
            await _put(store, tmp_path, SMALL_BYTES)
        assert len(server.requests) == 1


async def test_a_lost_answer_of_the_completion(tmp_path: Path) -> None:
    completions = 0

    def fault(request: web.Request) -> web.Response | None:
        nonlocal completions
        if not _is_complete(request):
            return None
        completions += 1
        if completions == 1:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return _error(404, "NoSuchUpload")

    async with _faulty(tmp_path, fault) as (store, _):
        await _put(store, tmp_path, LARGE_BYTES)
    assert completions == 2


async def test_an_error_with_status_200(tmp_path: Path) -> None:
    completions = 0

    def fault(request: web.Request) -> web.Response | None:
        nonlocal completions
        completions += _is_complete(request)
        return _error(200, "InternalError") if _is_complete(request) and completions == 1 else None

    async with _faulty(tmp_path, fault) as (store, _):
        await _put(store, tmp_path, LARGE_BYTES)
    assert completions == 2


@pytest.mark.parametrize("size_bytes", [SMALL_BYTES, LARGE_BYTES])
@pytest.mark.parametrize("is_size", [True, False])
async def test_a_store_that_has_something_else(tmp_path: Path, size_bytes: int, is_size: bool) -> None:
    def fault(request: web.Request) -> web.Response | None:
        if request.method != "HEAD":
            return None
        if is_size:
            return web.Response(headers={"Content-Length": "7"})
        return web.Response(headers={"Content-Length": str(size_bytes), "x-amz-meta-sha256": "0" * 64})

    async with _faulty(tmp_path, fault) as (store, _):
        with pytest.raises(ObjectDiffers):
            await _put(store, tmp_path, size_bytes)


async def test_parts_that_cannot_be_sent_are_not_left_behind(tmp_path: Path) -> None:
    def fault(request: web.Request) -> web.Response | None:
        return _error(400, "EntityTooSmall") if "partNumber" in request.query else None

    async with _faulty(tmp_path, fault) as (store, server):
        with pytest.raises(StoreRefused):
            await _put(store, tmp_path, LARGE_BYTES)
        last = server.requests[-1]
        assert (last.method, "uploadId=upload-1" in last.target) == ("DELETE", True)


async def test_what_an_earlier_process_began_is_aborted(tmp_path: Path) -> None:
    def fault(request: web.Request) -> web.Response | None:
        if request.method != "GET":
            return None
        left = "".join(
            f"<Upload><Key>{key}</Key><UploadId>{upload_id}</UploadId></Upload>"
            for key, upload_id in ((KEY, "old-1"), (f"{KEY}.other", "old-2"))
        )
        text = f"<ListMultipartUploadsResult>{left}</ListMultipartUploadsResult>"
        return web.Response(text=text, content_type="application/xml")

    async with _faulty(tmp_path, fault) as (store, server):
        await _put(store, tmp_path, LARGE_BYTES)
        aborted = [request.target for request in server.requests if request.method == "DELETE"]
        assert len(aborted) == 1
        assert "uploadId=old-1" in aborted[0]


async def test_cancelling_leaves_no_parts(tmp_path: Path) -> None:
    begun = asyncio.Event()

    def fault(request: web.Request) -> web.Response | None:
        if "partNumber" in request.query:
            begun.set()
            return _error(503, "SlowDown")
        return None

    async with _faulty(tmp_path, fault) as (store, server):
        put = asyncio.create_task(_put(store, tmp_path, LARGE_BYTES))
        await begun.wait()
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        assert server.requests[-1].method == "DELETE"
