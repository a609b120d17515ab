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
