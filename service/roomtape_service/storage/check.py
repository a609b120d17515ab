"""Whether storage settings work: by doing once what uploads and playback will do."""

import hashlib
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from roomtape.v1 import application_pb2, storage_pb2
from roomtape_service.ids import Ids
from roomtape_service.storage.bucket import S3Limits
from roomtape_service.storage.part import PART_BYTES
from roomtape_service.storage.s3 import S3Store
from roomtape_service.storage.store import ObjectDiffers, ObjectMissing, Store, StoreError, check_stored
from roomtape_service.storage.stores import Stores

__all__ = ["StorageCheck"]

_SMALL_BYTES = 4096
_RANGE = (1000, 500)
# Two parts, the second as small as it can be.
_LAST_PART_BYTES = 1
_CONTENT_TYPE = "application/octet-stream"
# Somebody waits for the answer: two attempts, and no long patience.
_LIMITS = S3Limits(call_seconds=10.0, attempts=2)
_UNLISTED = (
    " Recording and playing work without it; to clean up uploads that were broken off, and to list what a bucket has, "
    "it is needed."
)


class StorageCheck:
    """Puts, reads, lists and deletes two objects of random bytes, and explains what fails."""

    def __init__(self, stores: Stores, ids: Ids, *, limits: S3Limits = _LIMITS) -> None:
        self._stores = stores
        self._ids = ids
        self._limits = limits

    async def check(
        self, settings: storage_pb2.StorageSettings, app_id: str = ""
    ) -> application_pb2.CheckStorageResponse:
        """Tries settings that are valid and complete, their secrets in clear; the second store after the first.

        HeadBucket is never used: it answers well where nothing else works.
        """
        response = application_pb2.CheckStorageResponse(ok=True)
        await self._check(response, settings, app_id, is_secondary=False)
        if settings.HasField("secondary"):
            await self._check(response, settings.secondary, app_id, is_secondary=True)
        return response

    async def _check(
        self,
        response: application_pb2.CheckStorageResponse,
        settings: storage_pb2.StorageSettings | storage_pb2.SecondaryStore,
        app_id: str,
        *,
        is_secondary: bool,
    ) -> None:
        try:
            store = self._stores.store(settings, app_id=app_id, limits=self._limits)
        except StoreError as error:
            response.ok = False
            response.steps.add(
                name="put", error_code=error.code, message=error.message, secondary=is_secondary
            )
            return
        prefix = settings.prefix.rstrip("/")
        name = f"roomtape-storage-check-{self._ids.token()}"
        base = f"{prefix}/{name}" if prefix else name
        with tempfile.TemporaryDirectory(prefix="roomtape-check-") as folder:
            await _Check(response, store, base, Path(folder), is_secondary=is_secondary).run()


class _Check:
    """One check of one store; `base` is the start of its objects' keys."""

    def __init__(
        self,
        response: application_pb2.CheckStorageResponse,
        store: Store,
        base: str,
        folder: Path,
        *,
        is_secondary: bool,
    ) -> None:
        self._response = response
        self._store = store
        self._folder = folder
        self._is_secondary = is_secondary
        self._base = base
        self._small = f"{base}/small.bin"
        self._large = f"{base}/large.bin"
        self._data = os.urandom(_SMALL_BYTES)

    async def run(self) -> None:
        """Runs the steps; what was put is removed."""
        is_there = await self._step("put", self._put)
        if is_there and await self._step("head", self._head) and await self._step("read", self._read):
            # Much works without a list.
            await self._step("list", self._list)
            await self._step("multipart", self._multipart)
        if is_there:
            await self._step("delete", self._delete)
        else:
            await self._clean()

    async def _step(self, name: str, step: Callable[[], Awaitable[None]]) -> bool:
        result = self._response.steps.add(name=name, ok=True, secondary=self._is_secondary)
        try:
            await step()
        except StoreError as error:
            self._response.ok = result.ok = False
            result.error_code = error.code
            result.message = error.message + (_UNLISTED if name == "list" else "")
        return result.ok

    async def _put(self) -> None:
        source = self._folder / "small"
        source.write_bytes(self._data)
        await self._store.put(self._small, source, hashlib.sha256(self._data).hexdigest(), _CONTENT_TYPE)

    async def _head(self) -> None:
        stored = await self._store.head(self._small)
        check_stored(stored, len(self._data), hashlib.sha256(self._data).hexdigest())
        await self._check_wishes(self._small)

    async def _read(self) -> None:
        start, length = _RANGE
        if await self._store.read(self._small, start, length) != self._data[start : start + length]:
            raise ObjectDiffers(
                "RangeDiffers",
                f"The store gave other bytes for {start} to {start + length - 1} than were put. Players can't seek "
                "in files of this store; ask its operator.",
            )

    async def _list(self) -> None:
        found = [stored.key for stored in await self._store.list(f"{self._base}/")]
        if found != [self._small]:
            raise ObjectDiffers(
                "ListDiffers",
                f"The store lists {len(found)} objects under {self._base}/ where one was put. Ask its operator.",
            )

    async def _multipart(self) -> None:
        store, key = self._store, self._large
        upload_id = await store.begin_parts(key, _CONTENT_TYPE)
        # As uploads do while a file is written: the first part last, and one of them again.
        last = os.urandom(_LAST_PART_BYTES)
        tags = {2: await store.put_part(key, upload_id, 2, last)}
        first = os.urandom(PART_BYTES)
        tags[1] = await store.put_part(key, upload_id, 1, first)
        await store.complete_parts(key, upload_id, tags, len(first) + len(last))
        start = len(first) - _LAST_PART_BYTES
        if await store.read(key, start, 2 * _LAST_PART_BYTES) != first[start:] + last:
            raise ObjectDiffers(
                "PartsDiffer", "The store did not put the parts together as they were numbered."
            )
        await self._check_wishes(key)
        await store.abort_parts(key, await store.begin_parts(key, _CONTENT_TYPE))

    async def _delete(self) -> None:
        for key in (self._small, self._large):
            await self._store.delete(key)
        try:
            await self._store.head(self._small)
        except ObjectMissing:
            return
        raise ObjectDiffers("NotDeleted", "The object is still there after it was deleted.")

    async def _clean(self) -> None:
        # The object may be there though its put failed; that it can't be removed then is no news.
        for key in (self._small, self._large):
            try:
                await self._store.delete(key)
            except StoreError:
                return

    async def _check_wishes(self, key: str) -> None:
        if isinstance(self._store, S3Store):
            await self._store.check_wishes(key)
