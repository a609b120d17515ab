"""Whether storage settings work: by doing once what uploads and playback will do."""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from roomtape.v1 import application_pb2, storage_pb2
from roomtape_service.ids import Ids
from roomtape_service.storage.part import PART_BYTES
from roomtape_service.storage.s3 import S3Limits
from roomtape_service.storage.store import ObjectDiffers, ObjectMissing, Store, StoreError, check_stored
from roomtape_service.storage.stores import Stores

__all__ = ["StorageCheck"]

_SMALL_BYTES = 4096
# Two parts, the second as small as it can be.
_LARGE_BYTES = PART_BYTES + 1
_RANGE = (1000, 500)
_CONTENT_TYPE = "application/octet-stream"
# Somebody waits for the answer: two attempts, and no long patience.
_LIMITS = S3Limits(call_seconds=10.0, attempts=2)


class StorageCheck:
    """Puts, reads and deletes two objects of random bytes, and explains what fails."""

    def __init__(self, stores: Stores, ids: Ids) -> None:
        self._stores = stores
        self._ids = ids

    async def check(
        self, settings: storage_pb2.StorageSettings, app_id: str = ""
    ) -> application_pb2.CheckStorageResponse:
        """Tries settings that are valid and complete, their secrets in clear.

        HeadBucket is never used: it answers well where nothing else works.
        """
        store = self._stores.store(settings, app_id=app_id, limits=_LIMITS)
        prefix = settings.prefix.rstrip("/")
        name = f"roomtape-storage-check-{self._ids.token()}"
        base = f"{prefix}/{name}" if prefix else name
        with tempfile.TemporaryDirectory(prefix="roomtape-check-") as folder:
            return await _Check(store, base, Path(folder)).run()


class _Check:
    """One check; `base` is the start of its objects' keys."""

    def __init__(self, store: Store, base: str, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._small = f"{base}/small.bin"
        self._large = f"{base}/large.bin"
        self._data = os.urandom(_SMALL_BYTES)
        self._response = application_pb2.CheckStorageResponse(ok=True)

    async def run(self) -> application_pb2.CheckStorageResponse:
        for name, step in (
            ("put", self._put),
            ("head", self._head),
            ("read", self._read),
            ("multipart", self._multipart),
        ):
            if not await self._step(name, step):
                break
        if self._response.steps[0].ok:
            await self._step("delete", self._delete)
        else:
            await self._clean()
        return self._response

    async def _step(self, name: str, step: Callable[[], Awaitable[None]]) -> bool:
        result = self._response.steps.add(name=name, ok=True)
        try:
            await step()
        except StoreError as error:
            self._response.ok = result.ok = False
            result.error_code = error.code
            result.message = error.message
        return result.ok

    async def _put(self) -> None:
        source = self._folder / "small"
        source.write_bytes(self._data)
        await self._store.put(self._small, source, hashlib.sha256(self._data).hexdigest(), _CONTENT_TYPE)

    async def _head(self) -> None:
        stored = await self._store.head(self._small)
        check_stored(stored, len(self._data), hashlib.sha256(self._data).hexdigest())

    async def _read(self) -> None:
        start, length = _RANGE
        if await self._store.read(self._small, start, length) != self._data[start : start + length]:
            raise ObjectDiffers(
                "RangeDiffers",
                f"The store gave other bytes for {start} to {start + length - 1} than were put. Players can't seek "
                "in files of this store; ask its operator.",
            )

    async def _multipart(self) -> None:
        source = self._folder / "large"
        sha256 = await asyncio.to_thread(_write_random, source)
        await self._store.put(self._large, source, sha256, _CONTENT_TYPE)

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


def _write_random(path: Path) -> str:
    data = os.urandom(_LARGE_BYTES)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
