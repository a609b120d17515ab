"""The segments of a joined file, as bytes out of their stores."""

from collections.abc import AsyncGenerator

from roomtape_service.database import applications
from roomtape_service.database.database import Database
from roomtape_service.database.segments import SegmentRow
from roomtape_service.library.join_plan import JoinPlan
from roomtape_service.storage.secrets import SecretKeyError
from roomtape_service.storage.store import ObjectArchived, ObjectMissing, Store, StoreRefused
from roomtape_service.storage.stores import Stores

__all__ = ["JoinLost", "JoinSources"]

_READ_BYTES = 4 << 20


class JoinLost(Exception):
    """The file can never be made: the error code of the event, and why."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class JoinSources:
    """Reads the sources of orders."""

    def __init__(self, database: Database, stores: Stores) -> None:
        self._database = database
        self._stores = stores

    async def bytes(self, plan: JoinPlan) -> AsyncGenerator[bytes, None]:
        """All sources in their order. Raises JoinLost, StoreError."""
        for segment in plan.segments:
            store = await self._store(segment)
            at = 0
            while at < segment.size_bytes:
                try:
                    data = await store.read(segment.object_key, at, min(_READ_BYTES, segment.size_bytes - at))
                except (ObjectMissing, ObjectArchived) as error:
                    raise JoinLost(error.code, f"Segment {segment.segment_id}: {error.message}") from error
                if not data:
                    raise JoinLost(
                        "SizeDiffers",
                        f"The store has {at} bytes of segment {segment.segment_id} and no more.",
                    )
                at += len(data)
                yield data

    async def _store(self, segment: SegmentRow) -> Store:
        application = await self._database.read(
            lambda connection: applications.get(connection, segment.app_id)
        )
        try:
            store = self._stores.of_file(application, segment.store)
        except SecretKeyError as error:
            raise StoreRefused("CredentialsUnreadable", str(error)) from error
        if store is None:
            raise StoreRefused(
                "StoreLeft", f"The settings of the application lead no more to {segment.store}."
            )
        return store
