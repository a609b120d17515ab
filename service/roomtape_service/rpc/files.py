"""FileService: the library of what was recorded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp
from grpc import aio
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import error_pb2, file_pb2, file_pb2_grpc, media_pb2, segment_pb2
from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database import applications
from roomtape_service.database.database import Database
from roomtape_service.database.orders import Order
from roomtape_service.database.segments import (
    SegmentFilter,
    SegmentRow,
    find_segment,
    list_stored_segments,
    segment_message,
)
from roomtape_service.http.playback import Playback, content_headers
from roomtape_service.library.abandoning import Abandoning
from roomtape_service.library.deleting import Deleting
from roomtape_service.library.joining import Joining
from roomtape_service.library.refusals import file_not_found, file_not_stored
from roomtape_service.rpc import validation
from roomtape_service.rpc.manifests import ManifestCalls
from roomtape_service.rpc.paging import read_page, write_token
from roomtape_service.storage.disk import DiskStore
from roomtape_service.storage.secrets import SecretKeyError
from roomtape_service.storage.store import StoreError
from roomtape_service.storage.stores import Stores

__all__ = ["FileServicer", "Library"]

_DEFAULT_LIFETIME_SECONDS = 3600
_MAX_LIFETIME_SECONDS = 7 * 24 * 3600

Context: TypeAlias = "aio.ServicerContext[object, object]"


@dataclass(frozen=True, slots=True)
class Library:
    """What changes the library."""

    deleting: Deleting
    abandoning: Abandoning
    joining: Joining


class FileServicer(file_pb2_grpc.FileServiceServicer):
    """See the contract for what each call does and refuses."""

    def __init__(
        self, database: Database, stores: Stores, playback: Playback, library: Library, clock: Clock
    ) -> None:
        self._database = database
        self._stores = stores
        self._playback = playback
        self._library = library
        self._manifests = ManifestCalls(database, stores, playback, clock)
        self._clock = clock

    async def ListFiles(
        self, request: file_pb2.ListFilesRequest, context: Context
    ) -> file_pb2.ListFilesResponse:
        start = request.start_time if request.HasField("start_time") else None
        end = request.end_time if request.HasField("end_time") else None
        validation.refuse(
            validation.app_id(request.app_id),
            validation.key_prefix(request.key_prefix),
            validation.room_id(request.room_id, required=False),
            validation.user_id(request.user_id, required=False),
            validation.task_id(request.task_id, required=False),
            validation.timestamp(start, "start_time"),
            validation.timestamp(end, "end_time"),
            validation.labels(request.labels),
        )
        size, place = read_page(request)
        wanted = SegmentFilter(
            key_prefix=request.key_prefix,
            room_id=request.room_id,
            user_id=request.user_id,
            task_id=request.task_id,
            ends_after_ns=_nanoseconds(start),
            starts_before_ns=_nanoseconds(end),
            labels=dict(request.labels),
        )
        after = (int(place[0]), str(place[1])) if place else None

        async def read(connection: AsyncConnection) -> Sequence[SegmentRow]:
            await applications.get(connection, request.app_id)
            return await list_stored_segments(connection, request.app_id, wanted, after=after, limit=size + 1)

        # Conditions that hold for few files of many are looked for in all of them.
        rows = await self._database.scan(read)
        response = file_pb2.ListFilesResponse(files=[segment_message(row) for row in rows[:size]])
        if len(rows) > size:
            last = rows[size - 1]
            response.next_page_token = write_token(request, (last.start_ns, last.file_id))
        return response

    async def GetFile(self, request: file_pb2.GetFileRequest, context: Context) -> file_pb2.GetFileResponse:
        validation.refuse(validation.app_id(request.app_id), validation.file_id(request.file_id))
        return file_pb2.GetFileResponse(
            file=segment_message(await self._file(request.app_id, request.file_id))
        )

    async def CreatePlaybackUrl(
        self, request: file_pb2.CreatePlaybackUrlRequest, context: Context
    ) -> file_pb2.CreatePlaybackUrlResponse:
        lifetime = request.lifetime if request.HasField("lifetime") else None
        validation.refuse(
            validation.app_id(request.app_id),
            validation.file_id(request.file_id),
            validation.duration(lifetime, "lifetime", least_seconds=1, most_seconds=_MAX_LIFETIME_SECONDS),
        )
        seconds = lifetime.seconds + bool(lifetime.nanos) if lifetime else _DEFAULT_LIFETIME_SECONDS
        row = await self._file(request.app_id, request.file_id)
        if row.state != segment_pb2.SEGMENT_STATE_UPLOADED:
            raise file_not_stored(row)
        expire_seconds = self._clock.now_ns() // NANOSECONDS + seconds
        url = await self._url(row, seconds, expire_seconds)
        return file_pb2.CreatePlaybackUrlResponse(url=url, expire_time=Timestamp(seconds=expire_seconds))

    async def DeleteFile(
        self, request: file_pb2.DeleteFileRequest, context: Context
    ) -> file_pb2.DeleteFileResponse:
        _check_change(request)
        order = Order(request.app_id, request.request_id, "DeleteFile", request, file_pb2.DeleteFileResponse)
        return await self._library.deleting.delete(order, request.file_id)

    async def AbandonFile(
        self, request: file_pb2.AbandonFileRequest, context: Context
    ) -> file_pb2.AbandonFileResponse:
        _check_change(request)
        order = Order(
            request.app_id, request.request_id, "AbandonFile", request, file_pb2.AbandonFileResponse
        )
        return await self._library.abandoning.abandon(order, request.file_id)

    async def JoinSegments(
        self, request: file_pb2.JoinSegmentsRequest, context: Context
    ) -> file_pb2.JoinSegmentsResponse:
        validation.refuse(
            validation.app_id(request.app_id),
            validation.recording_id(request.recording_id),
            validation.enum(
                request.container,
                media_pb2.Container,
                "container",
                reason=error_pb2.ERROR_REASON_INVALID_CONTAINER,
            ),
            validation.segment_id(request.first_segment_id, "first_segment_id"),
            validation.segment_id(request.last_segment_id, "last_segment_id"),
            validation.request_id(request.request_id),
        )
        order = Order(
            request.app_id, request.request_id, "JoinSegments", request, file_pb2.JoinSegmentsResponse
        )
        return await self._library.joining.join(order, request)

    async def GetManifest(
        self, request: file_pb2.GetManifestRequest, context: Context
    ) -> file_pb2.GetManifestResponse:
        return await self._manifests.get(request)

    async def _file(self, app_id: str, file_id: str) -> SegmentRow:
        row = await self._database.read(lambda connection: find_segment(connection, app_id, file_id))
        if row is None:
            raise file_not_found(app_id, file_id)
        return row

    async def _url(self, row: SegmentRow, lifetime_seconds: int, expire_seconds: int) -> str:
        application = await self._database.read(lambda connection: applications.get(connection, row.app_id))
        try:
            store = self._stores.of_file(application, row.store)
            if store is None:
                raise file_not_stored(
                    row, f"lies in {row.store}, where the application's settings lead no more"
                )
            if isinstance(store, DiskStore):
                return self._playback.url(store.folder, row.object_key, expire_seconds)
            url = await store.playback_url(row.object_key, lifetime_seconds, content_headers(row.object_key))
        except (StoreError, SecretKeyError) as error:
            raise file_not_stored(row, f"can't be reached: {error}") from error
        if url is None:
            raise file_not_stored(row, f"lies in {row.store}, which can't be played from")
        return url


def _check_change(request: file_pb2.DeleteFileRequest | file_pb2.AbandonFileRequest) -> None:
    validation.refuse(
        validation.app_id(request.app_id),
        validation.file_id(request.file_id),
        validation.request_id(request.request_id),
    )


def _nanoseconds(time: Timestamp | None) -> int | None:
    return None if time is None else time.seconds * NANOSECONDS + time.nanos
