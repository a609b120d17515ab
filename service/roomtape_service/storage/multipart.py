"""Files that go in parts, and go on where they stopped: after a failure, after a restart, while they are written.

1. The row of a multipart is there before its store begins one. Where a crash left the row without the store's id, what
   the store has begun under the key is aborted, and one is begun anew.
2. The row of a part with the CRC-32 of its bytes is there before the part is sent, the part's tag after. A part without
   a tag is sent again.
3. While the file grows, parts are sent as they become final, apart from the first (`part`).
4. In the end one pass over the file compares the CRC-32 of each part that was sent, and takes the SHA-256 of all. What
   is missing is sent, and what differs sent again. Only what is as it was recorded is completed.
"""

import asyncio
import hashlib
import os
import zlib
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import structlog

from roomtape_service.database import multiparts
from roomtape_service.database.database import Database
from roomtape_service.database.multiparts import MultipartRow, PartRow
from roomtape_service.database.segments import SegmentRow
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.storage.budget import MemoryBudget
from roomtape_service.storage.part import PART_BYTES, Part, part_bytes_for, parts_of, settled_parts
from roomtape_service.storage.progress import UploadProgress
from roomtape_service.storage.store import PartsMissing, SourceDamaged, Store, StoreRefused

__all__ = ["Multiparts", "abort_begun"]

_SCAN_BYTES = 1 << 20

_log = structlog.get_logger(__name__)


class Multiparts:
    """Sends files in parts. One call at a time for a file; different files go side by side.

    Calls raise StoreError; after any failure, and after a crash, they may be made again and send what is missing.
    """

    def __init__(self, database: Database, memory: MemoryBudget, *, part_bytes: int = PART_BYTES) -> None:
        """`memory` is that of all parts in memory. `part_bytes` is the size of the parts of files below 70 GiB."""
        self.part_bytes = part_bytes
        self._suspects: set[str] = set()
        self._database = database
        self._memory = memory

    async def send_settled(
        self, row: SegmentRow, store: Store, content_type: str, checkpointed_bytes: int, share: MemoryBudget
    ) -> bool:
        """Sends a part of a file that grows. Returns whether more can be sent now.

        `share` is what the caller may have in memory, of the budget of all.
        """
        if settled_parts(checkpointed_bytes, self.part_bytes) < 2:
            return False
        multipart = await self._take_up(row, store, row.object_key, content_type, self.part_bytes)
        sent = await self._sent(multipart)
        last = settled_parts(checkpointed_bytes, multipart.part_bytes)
        missing = [number for number in range(2, last + 1) if number not in sent or not sent[number].tag]
        if not missing:
            return False
        size, number = multipart.part_bytes, missing[0]
        part = Part(number, (number - 1) * size, size)
        async with share.take(size), self._memory.take(size):
            with _open(row) as file:
                data, crc32 = await asyncio.to_thread(_read, file, part, None)
            try:
                tag = await self._send(multipart, store, part, data, crc32)
            except PartsMissing:
                await self._leave(multipart)
                raise
            del data
        await self._keep_tag(multipart, part, tag)
        return len(missing) > 1

    async def put(
        self, row: SegmentRow, store: Store, key: str, content_type: str, parallel: int, share: MemoryBudget
    ) -> None:
        """Sends what is missing of a file that is complete, and completes it; the store confirmed its size.

        At most `parallel` parts are sent at once. The row of the multipart goes with the unit that makes the file
        UPLOADED. Raises SourceDamaged, ObjectDiffers.
        """
        if row.file_id in self._suspects:
            # Of a file that was found damaged nothing more is sent before it is mended.
            await asyncio.to_thread(_check, row)
            self._suspects.discard(row.file_id)
        try:
            await self._put(row, store, key, content_type, parallel, share)
        except PartsMissing as error:
            _log.warning("multipart_begun_anew", file_id=row.file_id, error_code=error.code)
            await self._put(row, store, key, content_type, parallel, share)

    async def _put(
        self, row: SegmentRow, store: Store, key: str, content_type: str, parallel: int, share: MemoryBudget
    ) -> None:
        part_bytes = part_bytes_for(row.size_bytes, self.part_bytes)
        multipart = await self._take_up(row, store, key, content_type, part_bytes)
        try:
            sent = await self._sent(multipart)
            parts = parts_of(row.size_bytes, multipart.part_bytes)
            if any(number > len(parts) for number in sent):
                raise PartsMissing("PartsLeft", f"More was sent of {key} than there is of it now.")
            tags = await self._send_missing(row, multipart, store, parts, sent, parallel, share)
            await store.complete_parts(key, multipart.upload_id, tags, row.size_bytes)
        except (PartsMissing, SourceDamaged):
            await self._leave(multipart)
            raise

    async def _send_missing(
        self,
        row: SegmentRow,
        multipart: MultipartRow,
        store: Store,
        parts: Sequence[Part],
        sent: Mapping[int, PartRow],
        parallel: int,
        share: MemoryBudget,
    ) -> Mapping[int, str]:
        """Returns the tags of all parts. Reads the file once, in order."""
        tags: dict[int, str] = {}
        digest = hashlib.sha256()
        slots = asyncio.Semaphore(parallel)
        progress = UploadProgress(row)
        held: dict[int, tuple[int, int]] = {}

        async def send(part: Part, data: bytes, crc32: int) -> None:
            tag = await self._send(multipart, store, part, data, crc32)
            # The next part is read while the tag of this one becomes durable.
            del data
            release(part.number)
            await self._keep_tag(multipart, part, tag, progress)
            tags[part.number] = tag

        def release(number: int) -> None:
            taken = held.pop(number, None)
            if taken is not None:
                self._memory.release(taken[1])
                share.release(taken[0])
                slots.release()

        def done(number: int, _: asyncio.Task[None]) -> None:
            release(number)

        with _open(row) as file:
            async with _Sending() as sending:
                for part in parts:
                    known = sent.get(part.number)
                    if known is not None and known.tag and known.size_bytes == part.length:
                        before = digest.copy()
                        if await asyncio.to_thread(_scan, file, part, digest) == known.crc32:
                            tags[part.number] = known.tag
                            progress.known(part)
                            continue
                        _log.warning("part_differs", file_id=row.file_id, part=part.number)
                        digest = before
                    await slots.acquire()
                    if sending.has_failed:
                        break
                    taken = (await share.acquire(part.length), 0)
                    try:
                        taken = (taken[0], await self._memory.acquire(part.length))
                        data, crc32 = await asyncio.to_thread(_read, file, part, digest)
                    except BaseException:
                        self._memory.release(taken[1])
                        share.release(taken[0])
                        raise
                    held[part.number] = taken
                    task = sending.start(send(part, data, crc32))
                    task.add_done_callback(partial(done, part.number))
                    del data
        if digest.hexdigest() != row.sha256:
            self._suspects.add(row.file_id)
            raise _differs(row)
        return tags

    async def _send(self, multipart: MultipartRow, store: Store, part: Part, data: bytes, crc32: int) -> str:
        row = PartRow(part.number, part.length, crc32, "")

        async def add_part(unit: UnitOfWork) -> None:
            await multiparts.add_part(unit.connection, multipart.multipart_id, row)

        await self._database.write(add_part)
        return await store.put_part(multipart.object_key, multipart.upload_id, part.number, data)

    async def _keep_tag(
        self, multipart: MultipartRow, part: Part, tag: str, progress: UploadProgress | None = None
    ) -> None:
        async def set_tag(unit: UnitOfWork) -> None:
            if progress is not None:
                await progress.sent(unit, part)
            await multiparts.set_tag(unit.connection, multipart.multipart_id, part.number, tag)

        await self._database.write(set_tag)

    async def _take_up(
        self, row: SegmentRow, store: Store, key: str, content_type: str, part_bytes: int
    ) -> MultipartRow:
        """The file's multipart to this place, which is begun if there is none."""
        multipart = await self._database.read(lambda connection: multiparts.find(connection, row.file_id))
        if (
            multipart is None
            or (multipart.store, multipart.object_key) != (store.identity, key)
            or multipart.part_bytes < part_bytes
        ):

            async def add(unit: UnitOfWork) -> MultipartRow:
                return await multiparts.add(unit, row.app_id, row.file_id, store.identity, key, part_bytes)

            multipart = await self._database.write(add)
        elif multipart.upload_id:
            return multipart
        else:
            # Before a crash the store was asked to begin one, or not.
            try:
                await abort_begun(self._database, store, key)
            except StoreRefused as error:
                # Not every key may list, and not every vendor can; what may be left must not keep the file here.
                _log.warning(
                    "begun_multiparts_not_listed", store=store.identity, object_key=key, error=error.message
                )
        upload_id = await store.begin_parts(key, content_type, part_bytes=multipart.part_bytes)
        multipart_id = multipart.multipart_id

        async def set_upload_id(unit: UnitOfWork) -> None:
            await multiparts.set_upload_id(unit.connection, multipart_id, upload_id)

        await self._database.write(set_upload_id)
        found = await self._database.read(lambda connection: multiparts.find(connection, row.file_id))
        if found is None or found.upload_id != upload_id:
            raise PartsMissing("UploadLeft", f"The file of {key} was given up while its upload began.")
        return found

    async def _sent(self, multipart: MultipartRow) -> Mapping[int, PartRow]:
        return await self._database.read(
            lambda connection: multiparts.parts_sent(connection, multipart.multipart_id)
        )

    async def _leave(self, multipart: MultipartRow) -> None:
        async def leave(unit: UnitOfWork) -> None:
            await multiparts.leave(unit.connection, multipart.file_id)

        await self._database.write(leave)


class _Sending:
    """Parts on their way. When one fails those that are on their way reach their end, and then the block fails."""

    def __init__(self) -> None:
        self.has_failed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []

    def start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Sends one."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.has_failed = True
            self._errors.append(error)

    async def __aenter__(self) -> "_Sending":
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if isinstance(error, asyncio.CancelledError):
                raise error
            while self._tasks:
                await asyncio.wait(self._tasks)
        except asyncio.CancelledError:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        if error is None and self._errors:
            raise self._errors[0]


async def abort_begun(database: Database, store: Store, key: str) -> None:
    """Aborts all that the store has begun under a key and no row goes on with. Raises StoreError."""
    begun = await store.list_parts_begun(key)
    known = await database.read(lambda connection: multiparts.ids_of_key(connection, store.identity, key))
    for each in begun:
        if each.key == key and each.upload_id not in known:
            await store.abort_parts(key, each.upload_id)


def _differs(row: SegmentRow) -> SourceDamaged:
    return SourceDamaged("SourceDiffers", f"{row.spool_path} is not what was recorded: its SHA-256 differs.")


def _check(row: SegmentRow) -> None:
    """Raises SourceDamaged unless the file is what was recorded."""
    digest = hashlib.sha256()
    with _open(row) as file:
        _scan(file, Part(1, 0, row.size_bytes), digest)
    if digest.hexdigest() != row.sha256:
        raise _differs(row)


def _open(row: SegmentRow) -> BinaryIO:
    assert row.spool_path is not None
    with _source(row.spool_path):
        return Path(row.spool_path).open("rb", buffering=0)


@contextmanager
def _source(name: str) -> Iterator[None]:
    """Raises SourceDamaged where the file is gone or can't be read."""
    try:
        yield
    except FileNotFoundError as error:
        raise SourceDamaged("SourceMissing", f"{name} is gone.") from error
    except OSError as error:
        raise SourceDamaged("SourceUnreadable", f"{name} can't be read: {error.strerror}.") from error


def _read(file: BinaryIO, part: Part, digest: "hashlib._Hash | None") -> tuple[bytes, int]:
    """The part and its CRC-32."""
    with _source(file.name):
        data = os.pread(file.fileno(), part.length, part.start)
    if len(data) != part.length:
        raise SourceDamaged("SourceDiffers", f"{file.name} has become shorter.")
    if digest is not None:
        digest.update(data)
    return data, zlib.crc32(data)


def _scan(file: BinaryIO, part: Part, digest: "hashlib._Hash") -> int:
    """The CRC-32 of a part, without all of it in memory."""
    buffer = memoryview(bytearray(_SCAN_BYTES))
    crc32, place, end = 0, part.start, part.start + part.length
    while place < end:
        with _source(file.name):
            count = os.preadv(file.fileno(), [buffer[: min(_SCAN_BYTES, end - place)]], place)
        if not count:
            raise SourceDamaged("SourceDiffers", f"{file.name} has become shorter.")
        digest.update(buffer[:count])
        crc32 = zlib.crc32(buffer[:count], crc32)
        place += count
    return crc32
