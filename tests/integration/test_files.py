"""FileService over a real channel, and playback over real HTTP."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import aiohttp
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from roomtape.v1 import file_pb2, file_pb2_grpc, media_pb2, segment_pb2, storage_pb2
from roomtape_service.clock import ManualClock, SystemClock
from roomtape_service.database import Database, UnitOfWork, applications
from roomtape_service.http.playback import Playback
from roomtape_service.ids import CountedIds
from roomtape_service.rpc.files import FileServicer
from roomtape_service.rpc.server import RpcServer
from roomtape_service.settings import parse
from roomtape_service.spool.cleaning import remove_stored
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.storage.stores import Stores
from roomtape_service.storage.upload import Uploads
from tests.support.certificates import make_certificates
from tests.support.databases import APP, ROOM, add_application, add_tasks
from tests.support.rclone import Loopback, RcloneServer
from tests.support.spooled import SpooledFile, TestSpool
from tests.support.stores import SECRET_KEY, make_stores, rclone_settings, weed_settings
from tests.support.waiting import eventually
from tests.support.weed import WeedServer

TASK = "1000"
OTHER = "other"
START_SECONDS = 1_675_930_605


@dataclass
class Library:
    """A running FileService and what is behind it."""

    stub: "file_pb2_grpc.FileServiceAsyncStub"
    database: Database
    stores: Stores
    spool: TestSpool
    clock: ManualClock

    async def add(
        self,
        *users: str,
        app_id: str = APP,
        task_id: str = TASK,
        containers: Sequence[media_pb2.Container.ValueType] = (media_pb2.CONTAINER_MP3,),
    ) -> list[SpooledFile]:
        """Files of these users, uploaded, each starting a nanosecond after the one before."""
        files = [
            file
            for user_id in users
            for file in await self.spool.add(app_id, task_id, user_id=user_id, containers=containers)
        ]
        uploads = Uploads(self.database, self.stores, SystemClock(), _nothing, remove_stored)
        running = asyncio.create_task(uploads.run())
        await eventually(lambda: self.spool.is_uploaded(*files), "all files are uploaded")
        await uploads.aclose()
        await running
        return files

    async def set_storage(self, settings: storage_pb2.StorageSettings) -> None:
        sealed = SecretBox(SECRET_KEY).seal(APP, settings).SerializeToString()

        async def work(unit: UnitOfWork) -> None:
            record = await applications.get(unit.connection, APP)
            await applications.change(unit, replace(record, storage=sealed))

        await self.database.write(work)

    async def list(self, **conditions: object) -> list[segment_pb2.Segment]:
        request = file_pb2.ListFilesRequest(app_id=APP, **conditions)  # type: ignore[arg-type]
        return list((await self.stub.ListFiles(request)).files)

    async def url(self, file: SpooledFile, lifetime_seconds: int = 60) -> str:
        request = file_pb2.CreatePlaybackUrlRequest(
            app_id=file.app_id, file_id=file.file_id, lifetime=Duration(seconds=lifetime_seconds)
        )
        return (await self.stub.CreatePlaybackUrl(request)).url


async def _nothing(unit: UnitOfWork, app_id: str, task_id: str) -> None:
    """The task waits for nothing."""


@pytest.fixture
async def library(
    tmp_path: Path, rclone: RcloneServer, request: pytest.FixtureRequest
) -> AsyncIterator[Library]:
    clock = ManualClock(SystemClock().now_ns())
    values: dict[str, object] = {
        "data_dir": str(tmp_path),
        "listen": "127.0.0.1:0",
        "http_listen": "127.0.0.1:0",
    }
    if getattr(request, "param", "") == "tls":
        certificates = make_certificates(tmp_path, ["127.0.0.1"])
        values |= {
            "tls_certificate_file": str(certificates.certificate),
            "tls_key_file": str(certificates.key),
            "public_url": "https://127.0.0.1:0",
        }
    settings = parse(values)
    database = Database(f"sqlite:///{tmp_path}/test.db", clock)
    await database.open()
    for app_id, task_id in ((APP, TASK), (OTHER, "2000")):
        await add_application(database, app_id)
        await add_tasks(database, [task_id], app_id=app_id)
    stores = make_stores(settings.storage_root, authority=rclone.authority)
    playback = Playback(settings, stores, SecretBox(SECRET_KEY), clock)
    await playback.start()
    servicer = FileServicer(database, stores, playback, clock)
    plain = parse({"data_dir": str(tmp_path), "listen": "127.0.0.1:0"})
    register = partial(file_pb2_grpc.add_FileServiceServicer_to_server, servicer)
    server = RpcServer(plain, [register], [], clock, CountedIds())
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub: file_pb2_grpc.FileServiceAsyncStub = file_pb2_grpc.FileServiceStub(channel)
        spool = TestSpool(database, stores, settings.spool_dir / "generation")
        yield Library(stub, database, stores, spool, clock)
    await server.aclose()
    await playback.aclose()
    await stores.aclose()
    await database.aclose()


async def test_lists_what_is_stored(library: Library) -> None:
    files = await library.add("anna", "ben", "carl")
    await library.add("anna", app_id=OTHER, task_id="2000")
    (spooled,) = await library.spool.add(APP, TASK, user_id="dora")
    listed = await library.list()
    assert [file.file_id for file in listed] == [file.file_id for file in files]
    assert spooled.file_id not in {file.file_id for file in listed}
    assert (listed[0].object_key, listed[0].room_id, listed[0].user_id) == (files[0].object_key, ROOM, "anna")
    for conditions, users in (
        ({"user_id": "ben"}, ["ben"]),
        ({"room_id": ROOM}, ["anna", "ben", "carl"]),
        ({"room_id": "another"}, []),
        ({"task_id": TASK}, ["anna", "ben", "carl"]),
        ({"task_id": "2000"}, []),
        ({"key_prefix": f"{APP}_{ROOM}_b"}, ["ben"]),
        ({"key_prefix": f"{APP.upper()}_{ROOM}_b"}, []),
        ({"key_prefix": "%"}, []),
        ({"start_time": Timestamp(seconds=START_SECONDS)}, ["anna", "ben", "carl"]),
        ({"start_time": Timestamp(seconds=START_SECONDS + 2)}, []),
        ({"end_time": Timestamp(seconds=START_SECONDS)}, []),
        ({"end_time": Timestamp(seconds=START_SECONDS + 1)}, ["anna", "ben", "carl"]),
    ):
        assert [file.user_id for file in await library.list(**conditions)] == users, conditions


async def test_pages_hold_everything_once(library: Library) -> None:
    files = await library.add(*(f"user-{n}" for n in range(5)))
    found: list[str] = []
    token = ""
    for _ in range(3):
        request = file_pb2.ListFilesRequest(app_id=APP, page_size=2, page_token=token)
        page = await library.stub.ListFiles(request)
        found += [file.file_id for file in page.files]
        token = page.next_page_token
    assert token == ""
    assert found == [file.file_id for file in files]


async def test_one_tenant_sees_nothing_of_another(library: Library) -> None:
    (file,) = await library.add("anna", app_id=OTHER, task_id="2000")
    assert await library.list() == []
    get = library.stub.GetFile(file_pb2.GetFileRequest(app_id=APP, file_id=file.file_id))
    assert await _refusal(get) == (grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND")
    play = library.stub.CreatePlaybackUrl(file_pb2.CreatePlaybackUrlRequest(app_id=APP, file_id=file.file_id))
    assert await _refusal(play) == (grpc.StatusCode.NOT_FOUND, "FILE_NOT_FOUND")


async def test_a_file_is_shown_in_any_state_and_played_when_stored(library: Library) -> None:
    (file,) = await library.spool.add(APP, TASK)
    shown = await library.stub.GetFile(file_pb2.GetFileRequest(app_id=APP, file_id=file.file_id))
    assert shown.file.state == segment_pb2.SEGMENT_STATE_SPOOLED
    assert (shown.file.size_bytes, shown.file.url) == (len(file.data), "")
    play = library.stub.CreatePlaybackUrl(file_pb2.CreatePlaybackUrlRequest(app_id=APP, file_id=file.file_id))
    assert await _refusal(play) == (grpc.StatusCode.FAILED_PRECONDITION, "FILE_NOT_STORED")


@pytest.mark.parametrize("library", ["plain", "tls"], indirect=True)
async def test_disk_files_play_with_ranges(library: Library, tmp_path: Path) -> None:
    (file,) = await library.add("ä/🎙 _~", containers=[media_pb2.CONTAINER_OGG])
    url = await library.url(file)
    authority = tmp_path / "authority.pem"
    verify = _trusting(authority) if url.startswith("https") else True
    async with aiohttp.ClientSession() as session:
        async with session.get(url, ssl=verify) as answer:
            assert answer.status == 200
            assert await answer.read() == file.data
            assert answer.headers["Content-Type"] == "audio/ogg"
            assert answer.headers["Accept-Ranges"] == "bytes"
            assert "inline; filename*=" in answer.headers["Content-Disposition"]
        async with session.get(url, headers={"Range": "bytes=100-199"}, ssl=verify) as answer:
            assert answer.status == 206
            assert await answer.read() == file.data[100:200]
            assert answer.headers["Content-Range"] == f"bytes 100-199/{len(file.data)}"
        async with session.head(url, ssl=verify) as answer:
            assert answer.headers["Content-Length"] == str(len(file.data))


async def test_urls_open_one_file_for_a_time(library: Library) -> None:
    first, second = await library.add("anna", "ben")
    url = await library.url(first)
    signed = urlsplit(url).query
    expires = parse_qs(signed)["expires"][0]
    async with aiohttp.ClientSession() as session:
        for wrong in (
            url.replace("_anna/", "_ben/"),
            url.replace(f"/play/{APP}/", f"/play/{OTHER}/"),
            url.replace(f"expires={expires}", f"expires={int(expires) + 1}"),
            url.replace(f"expires={expires}", "expires=²"),
            url.replace("signature=", "signature=A"),
            url.partition("?")[0],
            url.partition("/play/")[0] + f"/play/..%2F..%2Fsecret.key/x?{signed}",
        ):
            async with session.get(wrong) as answer:
                assert answer.status in (403, 404), wrong
                assert first.data not in await answer.read()
        library.clock.advance(59)
        async with session.get(url) as answer:
            assert answer.status == 200
        library.clock.advance(1)
        async with session.get(url) as answer:
            assert answer.status == 403
            assert "expired" in await answer.text()
        url = await library.url(second)
        await library.stores.disk(APP).delete(second.object_key)
        async with session.get(url) as answer:
            assert answer.status == 404


@pytest.mark.parametrize("server", ["weed", "rclone"])
async def test_buckets_play_by_urls_of_their_own(
    library: Library, weed: WeedServer, rclone: RcloneServer, server: str
) -> None:
    await library.set_storage(weed_settings(weed) if server == "weed" else rclone_settings(rclone))
    (file,) = await library.add("anna")
    url = await library.url(file)
    connector = aiohttp.TCPConnector(resolver=Loopback())
    async with aiohttp.ClientSession(connector=connector) as session:
        verify = _trusting(rclone.authority) if server == "rclone" else True
        async with session.get(url, ssl=verify) as answer:
            assert await answer.read() == file.data


async def test_files_of_a_store_that_was_left(library: Library, weed: WeedServer) -> None:
    (on_disk,) = await library.add("anna")
    await library.set_storage(weed_settings(weed))
    (in_bucket,) = await library.add("ben")
    async with aiohttp.ClientSession() as session, session.get(await library.url(on_disk)) as answer:
        assert await answer.read() == on_disk.data
    await library.set_storage(weed_settings(weed, bucket="another-bucket"))
    play = library.stub.CreatePlaybackUrl(
        file_pb2.CreatePlaybackUrlRequest(app_id=APP, file_id=in_bucket.file_id)
    )
    assert await _refusal(play) == (grpc.StatusCode.FAILED_PRECONDITION, "FILE_NOT_STORED")


async def test_what_cannot_be_asked(library: Library) -> None:
    lifetime = Duration(seconds=8 * 24 * 3600)
    for call, reason in (
        (library.stub.ListFiles(file_pb2.ListFilesRequest()), "FIELD_REQUIRED"),
        (library.stub.ListFiles(file_pb2.ListFilesRequest(app_id="nobody")), "APPLICATION_NOT_FOUND"),
        (library.stub.ListFiles(file_pb2.ListFilesRequest(app_id=APP, page_size=-1)), "INVALID_VALUE"),
        (
            library.stub.ListFiles(file_pb2.ListFilesRequest(app_id=APP, page_token="x")),
            "INVALID_PAGE_TOKEN",
        ),
        (library.stub.ListFiles(file_pb2.ListFilesRequest(app_id=APP, task_id="x")), "INVALID_ID"),
        (library.stub.GetFile(file_pb2.GetFileRequest(app_id=APP)), "FIELD_REQUIRED"),
        (
            library.stub.CreatePlaybackUrl(
                file_pb2.CreatePlaybackUrlRequest(app_id=APP, file_id="x", lifetime=lifetime)
            ),
            "INVALID_VALUE",
        ),
    ):
        assert (await _refusal(call))[1] == reason


async def _refusal(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    raw = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(raw).details:
        detail.Unpack(info)
    return caught.value.code(), info.reason


def _trusting(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority))
