"""What every store must do, over the disk and over real S3 servers."""

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from roomtape_service.storage.store import (
    BucketMissing,
    CredentialsRefused,
    ObjectMissing,
    SourceDamaged,
    Store,
    StoreError,
)
from roomtape_service.storage.stores import Stores
from tests.support.rclone import Loopback, RcloneServer
from tests.support.stores import disk_settings, make_stores, rclone_settings, weed_settings
from tests.support.waiting import eventually
from tests.support.weed import WeedServer

TYPE = "audio/mpeg"

KEYS = [
    "app_room_user/2023-02-09-16-16-45_0_audio.mp3",
    "pre.fix/a-b/app_r~5F~F0~9F~8E~99_u~2F/1_2023-02-09-16-16-45_0_audio-2.wav",
    "päth/🎙 with spaces/&?#%+=,;:@!$'()*[]~/ÿ.ogg",
]


@pytest.fixture
async def stores(tmp_path: Path, rclone: RcloneServer) -> AsyncIterator[Stores]:
    stores = make_stores(tmp_path / "files", authority=rclone.authority)
    yield stores
    await stores.aclose()


@pytest.fixture(params=["disk", "weed", "rclone"])
def store(request: pytest.FixtureRequest, stores: Stores, weed: WeedServer, rclone: RcloneServer) -> Store:
    settings = {"disk": disk_settings(), "weed": weed_settings(weed), "rclone": rclone_settings(rclone)}
    return stores.store(settings[request.param])


@dataclass(frozen=True)
class Source:
    path: Path
    data: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@pytest.fixture
def source(tmp_path: Path) -> Callable[[int], Source]:
    def make(size_bytes: int) -> Source:
        data = random.Random(size_bytes).randbytes(size_bytes)
        path = tmp_path / f"source-{size_bytes}"
        path.write_bytes(data)
        return Source(path, data)

    return make


@pytest.mark.parametrize("key", KEYS)
async def test_what_was_put_is_there(store: Store, source: Callable[[int], Source], key: str) -> None:
    file = source(1000)
    stored = await store.put(key, file.path, file.sha256, TYPE)
    assert (stored.key, stored.size_bytes) == (key, 1000)
    assert stored.sha256 in (None, file.sha256)
    assert await store.head(key) == stored
    assert await store.read(key, 0, 1000) == file.data
    await store.delete(key)


async def test_reads_ranges(store: Store, source: Callable[[int], Source]) -> None:
    file = source(1000)
    await store.put("ranges/a.mp3", file.path, file.sha256, TYPE)
    assert await store.read("ranges/a.mp3", 10, 5) == file.data[10:15]
    assert await store.read("ranges/a.mp3", 990, 100) == file.data[990:]
    assert await store.read("ranges/a.mp3", 1000, 10) == b""


async def test_an_empty_file_is_an_object(store: Store, source: Callable[[int], Source]) -> None:
    file = source(0)
    stored = await store.put("empty/a.mp3", file.path, file.sha256, TYPE)
    assert stored.size_bytes == 0
    assert (await store.head("empty/a.mp3")).size_bytes == 0


async def test_a_second_put_replaces(store: Store, source: Callable[[int], Source]) -> None:
    for size_bytes in (2000, 1000):
        file = source(size_bytes)
        await store.put("twice/a.mp3", file.path, file.sha256, TYPE)
        assert await store.read("twice/a.mp3", 0, 3000) == file.data


async def test_a_deleted_object_is_missing(store: Store, source: Callable[[int], Source]) -> None:
    file = source(1000)
    await store.put("deleted/a.mp3", file.path, file.sha256, TYPE)
    await store.delete("deleted/a.mp3")
    await store.delete("deleted/a.mp3")
    with pytest.raises(ObjectMissing):
        await store.head("deleted/a.mp3")
    with pytest.raises(ObjectMissing):
        await store.read("deleted/a.mp3", 0, 1)


async def test_a_damaged_file_is_not_stored(store: Store, source: Callable[[int], Source]) -> None:
    file = source(1000)
    with pytest.raises(SourceDamaged):
        await store.put("damaged/a", file.path, hashlib.sha256(b"another").hexdigest(), TYPE)
    with pytest.raises(ObjectMissing):
        await store.head("damaged/a")


async def test_a_file_that_is_gone_is_said(store: Store, tmp_path: Path) -> None:
    with pytest.raises(SourceDamaged) as caught:
        await store.put("gone/a", tmp_path / "gone", hashlib.sha256(b"").hexdigest(), TYPE)
    assert caught.value.code == "SourceMissing"


async def test_many_at_once(store: Store, source: Callable[[int], Source]) -> None:
    files = [source(size_bytes) for size_bytes in range(100, 120)]
    async with asyncio.TaskGroup() as group:
        for file in files:
            group.create_task(store.put(f"many/{len(file.data)}", file.path, file.sha256, TYPE))
    for file in files:
        assert await store.read(f"many/{len(file.data)}", 0, 1000) == file.data


async def test_buckets_play_by_url(
    stores: Stores, source: Callable[[int], Source], weed: WeedServer, rclone: RcloneServer
) -> None:
    file = source(1000)
    headers = {"Content-Type": TYPE, "Content-Disposition": 'inline; filename="a.mp3"'}
    store = stores.store(weed_settings(weed))
    await store.put(KEYS[1], file.path, file.sha256, TYPE)
    url = await store.playback_url(KEYS[1], 60, headers)
    assert url is not None
    connector = aiohttp.TCPConnector(resolver=Loopback())
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get(url, headers={"Range": "bytes=10-19"}) as answer:
            assert answer.status == 206
            assert answer.headers["Content-Type"] == TYPE
            assert answer.headers["Content-Disposition"] == headers["Content-Disposition"]
            assert await answer.read() == file.data[10:20]
        async with session.get(url.replace("X-Amz-Signature=", "X-Amz-Signature=0")) as answer:
            assert answer.status == 403


@pytest.mark.parametrize(
    ("server", "change", "kind", "code"),
    [
        ("weed", {"access_key_id": "AKROOMTAPEUNKNOWN001"}, CredentialsRefused, "InvalidAccessKeyId"),
        ("weed", {"secret_access_key": "wrong"}, CredentialsRefused, "SignatureDoesNotMatch"),
        ("weed", {"bucket": "no-such-bucket"}, BucketMissing, "NoSuchBucket"),
        ("rclone", {"access_key_id": "AKROOMTAPEUNKNOWN001"}, CredentialsRefused, "InvalidAccessKeyId"),
        ("rclone", {"secret_access_key": "wrong"}, CredentialsRefused, "SignatureDoesNotMatch"),
        ("rclone", {"bucket": "no-such-bucket"}, BucketMissing, "NoSuchBucket"),
    ],
)
async def test_what_the_users_bucket_refuses(
    stores: Stores,
    weed: WeedServer,
    rclone: RcloneServer,
    source: Callable[[int], Source],
    server: str,
    change: dict[str, str],
    kind: type[StoreError],
    code: str,
) -> None:
    settings = weed_settings(weed, **change) if server == "weed" else rclone_settings(rclone, **change)
    store, file = stores.store(settings), source(1000)
    for call in (
        store.put("refused/a.mp3", file.path, file.sha256, TYPE),
        store.begin_parts("refused/a", TYPE),
    ):
        with pytest.raises(kind) as caught:
            await call
        assert caught.value.code == code
        assert settings.object_store.credentials.secret_access_key.value not in caught.value.message.split()


async def test_a_disk_that_hangs_keeps_nobody_else_waiting(stores: Stores, tmp_path: Path) -> None:
    """Reading a pipe to which nobody writes takes for ever."""
    store = stores.disk("hangs")
    folder = tmp_path / "files" / "hangs"
    folder.mkdir(parents=True)
    pipes = [folder / f"{number}" for number in range(64)]
    for pipe in pipes:
        os.mkfifo(pipe)
    reading = [asyncio.create_task(store.read(pipe.name, 0, 1)) for pipe in pipes]
    # All of them are begun before anybody else comes.
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(20):
            assert await asyncio.to_thread(folder.is_dir)
    finally:
        letting_go = asyncio.create_task(_let_go(pipes, reading))
        # What comes of them does not matter: no pipe can be read from a place.
        await asyncio.gather(*reading, return_exceptions=True)
        await letting_go


async def _let_go(pipes: Sequence[Path], reading: Sequence["asyncio.Task[bytes]"]) -> None:
    """Opens each to be written once somebody waits for that."""
    for pipe, task in zip(pipes, reading, strict=True):
        await eventually(partial(_is_let_go, pipe, task), "somebody reads the pipe")


def _is_let_go(pipe: Path, task: "asyncio.Task[bytes]") -> bool:
    if task.done():
        return True
    try:
        descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        # Nobody has opened it to read yet.
        return False
    os.close(descriptor)
    return True
