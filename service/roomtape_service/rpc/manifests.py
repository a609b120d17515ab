"""GetManifest: where a task's manifest is, and a URL that gives it."""

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import error_pb2, file_pb2
from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database import applications, manifests
from roomtape_service.database.applications import ApplicationRecord
from roomtape_service.database.database import Database
from roomtape_service.database.manifests import ManifestRow
from roomtape_service.database.tasks import find_task
from roomtape_service.errors import Refusal
from roomtape_service.http.playback import Playback, content_headers
from roomtape_service.rooms.room import timestamp
from roomtape_service.rpc import validation
from roomtape_service.storage.disk import DiskStore
from roomtape_service.storage.secrets import SecretKeyError
from roomtape_service.storage.store import StoreError
from roomtape_service.storage.stores import Stores
from roomtape_service.tasks.refusals import task_not_found

__all__ = ["ManifestCalls"]

_DEFAULT_LIFETIME_SECONDS = 3600
_MAX_LIFETIME_SECONDS = 7 * 24 * 3600


class ManifestCalls:
    """Reads rows and makes URLs; changes nothing."""

    def __init__(self, database: Database, stores: Stores, playback: Playback, clock: Clock) -> None:
        self._database = database
        self._stores = stores
        self._playback = playback
        self._clock = clock

    async def get(self, request: file_pb2.GetManifestRequest) -> file_pb2.GetManifestResponse:
        """Raises the Refusals that the contract names at GetManifest."""
        lifetime = request.lifetime if request.HasField("lifetime") else None
        validation.refuse(
            validation.app_id(request.app_id),
            validation.task_id(request.task_id),
            validation.duration(lifetime, "lifetime", least_seconds=1, most_seconds=_MAX_LIFETIME_SECONDS),
        )

        async def read(connection: AsyncConnection) -> tuple[ApplicationRecord, ManifestRow | None]:
            application = await applications.get(connection, request.app_id)
            if await find_task(connection, request.app_id, request.task_id) is None:
                raise task_not_found(request.app_id, request.task_id)
            return application, await manifests.find(connection, request.app_id, request.task_id)

        application, row = await self._database.read(read)
        if row is not None and row.update_ns is None and row.written:
            raise _not_found(request, "has no manifest any more: its files were deleted, or have expired")
        if row is None or row.update_ns is None:
            raise _not_found(
                request, "has no manifest in its store yet; it is on its way, ask again in a moment"
            )
        seconds = lifetime.seconds + bool(lifetime.nanos) if lifetime else _DEFAULT_LIFETIME_SECONDS
        expire_seconds = self._clock.now_ns() // NANOSECONDS + seconds
        try:
            url = await self._url(application, row, seconds, expire_seconds)
        except (StoreError, SecretKeyError) as error:
            raise _not_found(
                request, f"has its manifest in {row.store}, which can't be reached: {error}"
            ) from error
        if url is None:
            raise _not_found(request, f"has its manifest in {row.store}, where no URL leads to")
        manifest = file_pb2.Manifest(
            task_id=row.task_id,
            object_key=row.object_key,
            url=row.url,
            store=row.store,
            size_bytes=row.size_bytes,
            sha256=row.sha256,
            update_time=timestamp(row.update_ns),
            complete=row.is_complete,
        )
        return file_pb2.GetManifestResponse(
            manifest=manifest, playback_url=url, expire_time=Timestamp(seconds=expire_seconds)
        )

    async def _url(
        self, application: ApplicationRecord, row: ManifestRow, lifetime_seconds: int, expire_seconds: int
    ) -> str | None:
        store = self._stores.of_file(application, row.store)
        if store is None:
            return None
        if isinstance(store, DiskStore):
            return self._playback.url(store.folder, row.object_key, expire_seconds)
        return await store.playback_url(row.object_key, lifetime_seconds, content_headers(row.object_key))


def _not_found(request: file_pb2.GetManifestRequest, text: str) -> Refusal:
    return Refusal(
        error_pb2.ERROR_REASON_MANIFEST_NOT_FOUND,
        f"The task {request.task_id} {text}.",
        metadata={"appId": request.app_id, "taskId": request.task_id},
    )
