"""The library with what is behind it: FileService over a real channel, playback over HTTP, uploads and removals."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from roomtape.v1 import file_pb2, file_pb2_grpc, media_pb2, segment_pb2, storage_pb2
from roomtape_service.clock import ManualClock, SystemClock
from roomtape_service.database import Database, UnitOfWork, applications, manifests
from roomtape_service.http.playback import Playback
from roomtape_service.ids import CountedIds, RandomIds
from roomtape_service.library.abandoning import Abandoning
from roomtape_service.library.deleting import Deleting
from roomtape_service.library.expiry import Expiry
from roomtape_service.library.joining import Joining
from roomtape_service.library.joins import Joins
from roomtape_service.library.removing import Removals
from roomtape_service.operations import Operations
from roomtape_service.rpc import files
from roomtape_service.rpc.server import RpcServer
from roomtape_service.settings import parse
from roomtape_service.spool.cleaning import remove_stored
from roomtape_service.storage.secrets import SecretBox
from roomtape_service.storage.stores import Stores
from roomtape_service.storage.upload import Uploads
from tests.support.certificates import make_certificates
from tests.support.databases import APP, add_application, add_tasks
from tests.support.spooled import SpooledFile, TestSpool
from tests.support.stores import SECRET_KEY, make_stores
from tests.support.waiting import eventually

__all__ = ["OTHER", "TASK", "Library", "open_library", "refusal", "trusting"]

TASK = "1000"
OTHER = "other"
"""An application beside `APP`, with the task 2000."""


@dataclass
class Library:
    """A running FileService and what is behind it."""

    stub: "file_pb2_grpc.FileServiceAsyncStub"
    database: Database
    stores: Stores
    spool: TestSpool
    spool_dir: Path
    clock: ManualClock
    removals: Removals
    expiry: Expiry
    abandoning: Abandoning
    joins: Joins
    uploads: list[Uploads] = field(default_factory=list)
    """The uploads that run."""
    has_room: bool = True
    """Whether the spool takes joined files."""

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
        async with self.uploading():
            await eventually(lambda: self.spool.is_uploaded(*files), "all files are uploaded")
        return files

    @asynccontextmanager
    async def uploading(self) -> AsyncIterator[Uploads]:
        """Uploads what is spooled, by the machine's clock."""
        uploads = Uploads(self.database, self.stores, SystemClock(), manifests.changed, remove_stored)
        running = asyncio.create_task(uploads.run())
        self.uploads.append(uploads)
        yield uploads
        self.uploads.remove(uploads)
        await uploads.aclose()
        await running

    @asynccontextmanager
    async def removing(self) -> AsyncIterator[None]:
        """Removes what is to be removed."""
        running = asyncio.create_task(self.removals.run())
        yield
        await self.removals.aclose()
        await running

    @asynccontextmanager
    async def joining(self) -> AsyncIterator[None]:
        """Joins what is ordered."""
        running = asyncio.create_task(self.joins.run())
        yield
        await self.joins.aclose()
        await running

    def wake_uploads(self) -> None:
        """There is something to upload."""
        for uploads in self.uploads:
            uploads.wake()

    async def stop_upload(self, file_id: str) -> None:
        """What the node does for a file that is given up."""
        for uploads in self.uploads:
            await uploads.stop(file_id)

    async def set_storage(self, settings: storage_pb2.StorageSettings, *, app_id: str = APP) -> None:
        """What UpdateApplication does."""
        sealed = SecretBox(SECRET_KEY).seal(app_id, settings).SerializeToString()

        async def work(unit: UnitOfWork) -> None:
            record = await applications.get(unit.connection, app_id)
            await applications.change(unit, replace(record, storage=sealed))

        await self.database.write(work)

    async def get(self, file: SpooledFile) -> segment_pb2.Segment:
        """The file's entry."""
        request = file_pb2.GetFileRequest(app_id=file.app_id, file_id=file.file_id)
        return (await self.stub.GetFile(request)).file

    async def list(self, **conditions: object) -> list[segment_pb2.Segment]:
        """The first page."""
        request = file_pb2.ListFilesRequest(app_id=APP, **conditions)  # type: ignore[arg-type]
        return list((await self.stub.ListFiles(request)).files)

    async def delete(self, file: SpooledFile, request_id: str = "") -> segment_pb2.Segment:
        """DeleteFile."""
        request = file_pb2.DeleteFileRequest(app_id=file.app_id, file_id=file.file_id, request_id=request_id)
        return (await self.stub.DeleteFile(request)).file

    async def abandon(self, file: SpooledFile, request_id: str = "") -> segment_pb2.Segment:
        """AbandonFile."""
        request = file_pb2.AbandonFileRequest(app_id=file.app_id, file_id=file.file_id, request_id=request_id)
        return (await self.stub.AbandonFile(request)).file

    async def url(self, file: SpooledFile, lifetime_seconds: int = 60) -> str:
        """A playback URL."""
        request = file_pb2.CreatePlaybackUrlRequest(
            app_id=file.app_id, file_id=file.file_id, lifetime=Duration(seconds=lifetime_seconds)
        )
        return (await self.stub.CreatePlaybackUrl(request)).url


@asynccontextmanager
async def open_library(
    folder: Path, database_url: str, *, authority: Path | None = None, tls: bool = False
) -> AsyncIterator[Library]:
    """A library with the applications `APP` and `OTHER`; `authority` signed the certificates of its stores."""
    clock = ManualClock(SystemClock().now_ns())
    values: dict[str, object] = {
        "data_dir": str(folder),
        "listen": "127.0.0.1:0",
        "http_listen": "127.0.0.1:0",
    }
    if tls:
        certificates = make_certificates(folder, ["127.0.0.1"])
        values |= {
            "tls_certificate_file": str(certificates.certificate),
            "tls_key_file": str(certificates.key),
            "public_url": "https://127.0.0.1:0",
        }
    settings = parse(values)
    database = Database(database_url, clock)
    await database.open()
    for app_id, task_id in ((APP, TASK), (OTHER, "2000")):
        await add_application(database, app_id)
        await add_tasks(database, [task_id], app_id=app_id)
    stores = make_stores(settings.storage_root, authority=authority)
    playback = Playback(settings, database, stores, SecretBox(SECRET_KEY), clock)
    await playback.start()
    removals = Removals(database, stores, clock)
    operations = Operations()
    running: list[Library] = []

    async def stop_upload(file_id: str) -> None:
        await running[0].stop_upload(file_id)

    abandoning = Abandoning(database, settings.spool_dir, operations, stop_upload)
    joins = Joins(
        database,
        stores,
        settings.spool_dir,
        clock,
        RandomIds(),
        on_spooled=lambda: running[0].wake_uploads(),
        has_room=lambda size_bytes: running[0].has_room,
    )
    joining = Joining(database, stores, RandomIds(), joins.wake)
    changes = files.Library(Deleting(database, removals), abandoning, joining)
    servicer = files.FileServicer(database, stores, playback, changes, clock)
    plain = parse({"data_dir": str(folder), "listen": "127.0.0.1:0"})
    register = partial(file_pb2_grpc.add_FileServiceServicer_to_server, servicer)
    server = RpcServer(plain, [register], [], clock, CountedIds())
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub: file_pb2_grpc.FileServiceAsyncStub = file_pb2_grpc.FileServiceStub(channel)
        spool = TestSpool(database, stores, settings.spool_dir / "generation")
        running.append(
            Library(
                stub,
                database,
                stores,
                spool,
                settings.spool_dir,
                clock,
                removals,
                Expiry(database, removals, clock),
                abandoning,
                joins,
            )
        )
        yield running[0]
    await server.aclose()
    await operations.aclose()
    await removals.aclose()
    await joins.aclose()
    await playback.aclose()
    await stores.aclose()
    await database.aclose()


async def refusal(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    """Code and reason with which a call is refused."""
    with pytest.raises(aio.AioRpcError) as caught:
        await call
    raw = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(raw).details:
        detail.Unpack(info)
    return caught.value.code(), info.reason


def trusting(authority: Path) -> ssl.SSLContext:
    """TLS that trusts the authority."""
    return ssl.create_default_context(cafile=str(authority))
