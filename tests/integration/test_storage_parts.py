"""Multipart uploads and lists, over the disk and over real S3 servers."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from aiohttp import web

from roomtape_service.storage.bucket import S3Limits
from roomtape_service.storage.part import PART_BYTES
from roomtape_service.storage.store import (
    BegunParts,
    ObjectDiffers,
    ObjectMissing,
    PartsMissing,
    Store,
    StoreUnavailable,
)
from roomtape_service.storage.stores import Stores
from tests.support.rclone import RcloneServer
from tests.support.stores import disk_settings, make_stores, rclone_settings, weed_settings
from tests.support.weed import WeedServer
from tests.support.wire import wire_server

TYPE = "audio/wav"
LAST_BYTES = 1000
SIZE_BYTES = 2 * PART_BYTES + LAST_BYTES
DATA = random.Random(7).randbytes(SIZE_BYTES)
PARTS = {
    number: DATA[start : start + PART_BYTES]
    for number, start in enumerate(range(0, SIZE_BYTES, PART_BYTES), start=1)
}


@pytest.fixture
async def stores(tmp_path: Path, rclone: RcloneServer) -> AsyncIterator[Stores]:
    stores = make_stores(tmp_path / "files", authority=rclone.authority)
    yield stores
    await stores.aclose()


@pytest.fixture(params=["disk", "weed", "rclone"])
def store(request: pytest.FixtureRequest, stores: Stores, weed: WeedServer, rclone: RcloneServer) -> Store:
    settings = {"disk": disk_settings(), "weed": weed_settings(weed), "rclone": rclone_settings(rclone)}
    return stores.store(settings[request.param])


@pytest.fixture
def key() -> str:
    return f"parts-{uuid4().hex}/a b~F0.wav"


async def _put(store: Store, key: str, upload_id: str, numbers: list[int]) -> dict[int, str]:
    return {number: await store.put_part(key, upload_id, number, PARTS[number]) for number in numbers}


async def test_parts_come_in_any_order(store: Store, key: str) -> None:
    upload_id = await store.begin_parts(key, TYPE)
    tags = await _put(store, key, upload_id, [2, 3, 1])
    assert all(0 < len(tag) <= 256 for tag in tags.values())
    with pytest.raises(ObjectMissing):
        await store.head(key)
    stored = await store.complete_parts(key, upload_id, tags, SIZE_BYTES)
    assert (stored.key, stored.size_bytes) == (key, SIZE_BYTES)
    assert await store.read(key, 0, SIZE_BYTES) == DATA
    assert await store.list_parts_begun(key) == []
    await store.delete(key)


async def test_completing_again_finds_the_object(store: Store, key: str) -> None:
    upload_id = await store.begin_parts(key, TYPE)
    tags = await _put(store, key, upload_id, [1, 2, 3])
    first = await store.complete_parts(key, upload_id, tags, SIZE_BYTES)
    again = await store.complete_parts(key, upload_id, tags, SIZE_BYTES)
    assert again.size_bytes == first.size_bytes == SIZE_BYTES
    await store.abort_parts(key, upload_id)
    assert await store.read(key, 0, SIZE_BYTES) == DATA
    await store.delete(key)


async def test_nothing_is_left_of_what_was_aborted(store: Store, key: str) -> None:
    upload_id = await store.begin_parts(key, TYPE)
    tags = await _put(store, key, upload_id, [2])
    assert await store.list_parts_begun(key) == [BegunParts(key, upload_id)]
    assert await store.list_parts_begun(f"{key}x") == []
    for _ in range(2):
        await store.abort_parts(key, upload_id)
    assert await store.list_parts_begun(key) == []
    with pytest.raises(PartsMissing):
        await store.put_part(key, upload_id, 1, PARTS[1])
    with pytest.raises(PartsMissing):
        await store.complete_parts(key, upload_id, tags, PART_BYTES)
    with pytest.raises(ObjectMissing):
        await store.head(key)


async def test_two_uploads_of_a_key_are_apart(store: Store, key: str) -> None:
    ids = {await store.begin_parts(key, TYPE) for _ in range(2)}
    assert len(ids) == 2
    assert {begun.upload_id for begun in await store.list_parts_begun(key)} == ids
    first, second = ids
    tags = {1: await store.put_part(key, first, 1, PARTS[3])}
    await store.abort_parts(key, second)
    await store.complete_parts(key, first, tags, LAST_BYTES)
    assert await store.read(key, 0, SIZE_BYTES) == PARTS[3]
    await store.delete(key)
    assert await store.list_parts_begun(key) == []


async def test_a_wrong_size_is_told(store: Store, key: str) -> None:
    upload_id = await store.begin_parts(key, TYPE)
    tags = await _put(store, key, upload_id, [1])
    with pytest.raises((ObjectDiffers, PartsMissing)):
        await store.complete_parts(key, upload_id, tags, PART_BYTES + 1)
    await store.abort_parts(key, upload_id)
    await store.delete(key)


async def test_parts_are_replaced(stores: Stores, weed: WeedServer, key: str) -> None:
    # rclone refuses a part that it has.
    for store in (stores.store(disk_settings()), stores.store(weed_settings(weed))):
        upload_id = await store.begin_parts(key, TYPE)
        await store.put_part(key, upload_id, 1, bytes(PART_BYTES))
        tags = await _put(store, key, upload_id, [3, 1, 2])
        await store.complete_parts(key, upload_id, tags, SIZE_BYTES)
        assert await store.read(key, 0, SIZE_BYTES) == DATA
        await store.delete(key)


async def test_lists_go_on_page_by_page(store: Store) -> None:
    base = f"list-{uuid4().hex}/"
    names = ["a-b", "a.mp3", "a/b", "a/c/d", "b/1", "b/2", "b0", "ÿ/z"]
    for name in reversed(names):
        stored = await store.put_bytes(base + name, name.encode(), TYPE)
        assert stored.size_bytes == len(name.encode())
    listed = await store.list(base)
    sizes = {stored.key.removeprefix(base): stored.size_bytes for stored in listed}
    assert sizes == {name: len(name.encode()) for name in names}
    found: list[str] = []
    while page := await store.list(base, after=base + found[-1] if found else "", limit=2):
        found += [stored.key.removeprefix(base) for stored in page]
    assert found == list(sizes)
    # SeaweedFS lists what is in a folder before what sorts between the folder's name and its slash.
    assert found == names or "127.0.0.1" in store.identity
    assert [stored.key for stored in await store.list(f"{base}b/")] == [f"{base}b/1", f"{base}b/2"]
    assert await store.list(f"{base}c") == []
    for name in names:
        await store.delete(base + name)


async def test_small_objects_replace_each_other(store: Store, key: str) -> None:
    for data in (b"first", b"", b"second"):
        stored = await store.put_bytes(key, data, "application/json")
        assert stored.size_bytes == len(data)
        assert await store.read(key, 0, 100) == data
    await store.delete(key)


COMPLETED = "<CompleteMultipartUploadResult><ETag>whole</ETag></CompleteMultipartUploadResult>"
FAILED = "<Error><Code>InternalError</Code><Message>We failed.</Message></Error>"


async def test_an_answer_that_is_lost_is_found_out(tmp_path: Path) -> None:
    """The first call completes it and its connection breaks; the second hears of no such upload."""
    calls: list[str] = []

    def fault(request: web.Request) -> web.Response | None:
        if request.method != "POST" or "uploadId" not in request.query:
            return None
        calls.append(request.path)
        if len(calls) == 1:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=404, text=FAILED.replace("InternalError", "NoSuchUpload"))

    async with wire_server(tmp_path, ["*.s3.test"], fault) as server:
        stores = make_stores(tmp_path, authority=server.authority, port=server.port)
        store = stores.store(rclone_settings(_named(server.authority, tmp_path)))
        tags = {1: await store.put_part("a", await store.begin_parts("a", TYPE), 1, PARTS[3])}
        stored = await store.complete_parts("a", "upload-1", tags, LAST_BYTES)
        assert stored.size_bytes == LAST_BYTES
        assert len(calls) == 2
        with pytest.raises(PartsMissing):
            await store.complete_parts("a", "upload-1", tags, LAST_BYTES + 1)
        await stores.aclose()


async def test_an_error_in_a_good_answer_is_an_error(tmp_path: Path) -> None:
    answers = [FAILED, FAILED, COMPLETED]

    def fault(request: web.Request) -> web.Response | None:
        if request.method == "POST" and "uploadId" in request.query:
            return web.Response(text=answers.pop(0), content_type="application/xml")
        return None

    async with wire_server(tmp_path, ["*.s3.test"], fault) as server:
        limits = S3Limits(attempts=2, first_wait_seconds=0.01)
        stores = make_stores(tmp_path, authority=server.authority, port=server.port, limits=limits)
        store = stores.store(rclone_settings(_named(server.authority, tmp_path)))
        tags = {1: await store.put_part("a", await store.begin_parts("a", TYPE), 1, PARTS[3])}
        with pytest.raises(StoreUnavailable) as caught:
            await store.complete_parts("a", "upload-1", tags, LAST_BYTES)
        assert caught.value.code == "InternalError"
        assert (await store.complete_parts("a", "upload-1", tags, LAST_BYTES)).size_bytes == LAST_BYTES
        await stores.aclose()


async def test_a_server_that_gives_its_first_page_for_ever_is_listed_once(tmp_path: Path) -> None:
    upload = "<Upload><Key>a</Key><UploadId>1</UploadId></Upload>"
    page = f"<ListMultipartUploadsResult><IsTruncated>true</IsTruncated>{upload}</ListMultipartUploadsResult>"
    calls: list[str] = []

    def fault(request: web.Request) -> web.Response | None:
        if "uploads" not in request.query:
            return None
        calls.append(request.path_qs)
        # Whoever asks for ever gets another answer in the end.
        answer = page if len(calls) < 9 else page.replace("true", "false")
        return web.Response(text=answer, content_type="application/xml")

    async with wire_server(tmp_path, ["*.s3.test"], fault) as server:
        stores = make_stores(tmp_path, authority=server.authority, port=server.port)
        store = stores.store(rclone_settings(_named(server.authority, tmp_path)))
        assert set(await store.list_parts_begun("a")) == {BegunParts("a", "1")}
        assert len(calls) == 2
        await stores.aclose()


def _named(authority: Path, folder: Path) -> RcloneServer:
    return RcloneServer("https://s3.test", authority, folder)
