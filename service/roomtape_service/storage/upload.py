"""Segments on their way from the spool to their stores.

1. What is to do stands in the database alone: SPOOLED and UPLOADING segments whose next attempt is due.
2. An attempt puts the file and has the store confirm it. Then state, URL and event are one unit of work.
3. Only then the spool file goes. After a crash anywhere before, the segment is put again.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database import applications, uploads
from roomtape_service.database.database import Database
from roomtape_service.database.segments import SegmentRow
from roomtape_service.storage.attempt import Attempts, GivenUp, OnUploaded, RemoveSpooled
from roomtape_service.storage.lane import Lane, wait_seconds
from roomtape_service.storage.store import ObjectDiffers, SourceDamaged, StoreError, StoreUnavailable
from roomtape_service.storage.stores import Stores

__all__ = ["UploadStatistics", "Uploads"]

_PARALLEL_UPLOADS = 16
# Of these, so many at most may be tries of stores in trouble: each can hang until its timeout.
_PARALLEL_TRIES = 8
# Wakes come from this process; what others put into the database, such as new settings, is found by looking.
_LOOK_SECONDS = 10.0
_TOLD_AT_ONCE = 64

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UploadStatistics:
    """What happened since the start, and what is going on."""

    uploaded_files: int
    uploaded_bytes: int
    failed_attempts: int
    running: int
    troubles: Mapping[str, str]
    """Applications whose store fails, and the newest error code."""


class Uploads:
    """Uploads until it is closed. `run` owns everything that changes."""

    def __init__(
        self,
        database: Database,
        stores: Stores,
        clock: Clock,
        on_uploaded: OnUploaded,
        remove_spooled: RemoveSpooled,
        *,
        randomness: random.Random | None = None,
    ) -> None:
        self._database = database
        self._stores = stores
        self._clock = clock
        self._attempts = Attempts(database, stores, on_uploaded, remove_spooled)
        self._random = randomness or random.Random()
        self._lanes: dict[str, Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._is_closing = False
        self._runner: asyncio.Task[None] | None = None
        self._last_app_id = ""
        self._uploaded_files = 0
        self._uploaded_bytes = 0
        self._failed_attempts = 0

    async def run(self) -> None:
        """Uploads until `aclose`; returns then."""
        self._runner = asyncio.current_task()
        try:
            with suppress(StoreError):
                await self._stores.remove_stale_parts(self._clock.now_ns())
            for row in await self._database.read(uploads.stored_on_spool):
                if self._is_closing:
                    return
                await self._attempts.remove_file(row)
            while not self._is_closing:
                self._wake.clear()
                try:
                    seconds = await self._start_due()
                except (SQLAlchemyError, OSError):
                    _log.exception("uploads_not_read")
                    seconds = _LOOK_SECONDS
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._wake.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def wake(self) -> None:
        """There may be something to upload. May be called at any time."""
        self._wake.set()

    async def retry_now(self, app_id: str) -> None:
        """All segments of the application are due: its settings changed, or somebody mended its store."""
        await self._database.write(
            lambda unit: uploads.hasten_uploads(unit.connection, app_id),
            name="storage.upload.Uploads.retry_now",
        )
        if lane := self._lanes.get(app_id):
            lane.next_ns = 0
        self.wake()

    async def stop(self, file_id: str) -> None:
        """Ends the attempt that a file which was given up may be in, and waits for its end."""
        for task in [task for task in self._tasks if task.get_name() == _task_name(file_id)]:
            task.cancel()
            await asyncio.wait((task,))

    async def aclose(self) -> None:
        """Ends `run`, and waits. What was being uploaded is uploaded after the next start."""
        self._is_closing = True
        self.wake()
        if self._runner is not None:
            await asyncio.wait((self._runner,))

    def statistics(self) -> UploadStatistics:
        """A snapshot."""
        return UploadStatistics(
            uploaded_files=self._uploaded_files,
            uploaded_bytes=self._uploaded_bytes,
            failed_attempts=self._failed_attempts,
            running=len(self._tasks),
            troubles={app_id: lane.trouble.code for app_id, lane in self._lanes.items() if lane.trouble},
        )

    async def _start_due(self) -> float:
        """Starts what is due and fits. Returns after how many seconds to look again without a wake."""
        now_ns = self._clock.now_ns()
        earliest = await self._database.read(uploads.earliest_uploads)
        lanes = self._lanes
        self._lanes = {i: lane for i, lane in lanes.items() if i in earliest or not lane.is_idle}
        next_ns = now_ns + round(_LOOK_SECONDS * NANOSECONDS)
        tries = sum(len(lane.in_hand) for lane in self._lanes.values() if lane.trouble)
        found: list[Sequence[SegmentRow]] = []
        slots = _PARALLEL_UPLOADS - len(self._tasks)
        for app_id in self._in_turn(earliest):
            lane = self._lanes.setdefault(app_id, Lane())
            due_ns = max(earliest[app_id], lane.next_ns)
            if due_ns > now_ns:
                next_ns = min(next_ns, due_ns)
                if lane.trouble:
                    await self._wait(app_id, lane, lane.trouble, now_ns)
                continue
            room = min(lane.free(now_ns), slots)
            if lane.trouble:
                room = max(0, min(room, _PARALLEL_TRIES - tries))
                tries += room
            if room > 0:
                found.append(await self._due(app_id, lane, now_ns, room))
            if sum(map(len, found)) >= _PARALLEL_UPLOADS:
                break
        for turn in zip_longest(*found):
            for row in turn:
                if row is not None and len(self._tasks) < _PARALLEL_UPLOADS:
                    self._start(row)
        return max(0.0, (next_ns - self._clock.now_ns()) / NANOSECONDS)

    def _in_turn(self, app_ids: Mapping[str, int]) -> Sequence[str]:
        """Round robin: who comes after the last one that was served is first."""
        ordered = sorted(app_ids)
        first = next((n for n, app_id in enumerate(ordered) if app_id > self._last_app_id), 0)
        return ordered[first:] + ordered[:first]

    async def _due(self, app_id: str, lane: Lane, now_ns: int, limit: int) -> Sequence[SegmentRow]:
        async def read(connection: AsyncConnection) -> Sequence[SegmentRow]:
            in_hand = sorted(lane.in_hand)
            return await uploads.due_segments(connection, app_id, now_ns, without=in_hand, limit=limit)

        return await self._database.read(read)

    async def _wait(self, app_id: str, lane: Lane, trouble: StoreError, now_ns: int) -> None:
        """Segments wait with their lane; their watchers hear why without a try for each."""
        application = await self._database.read(lambda connection: applications.get(connection, app_id))
        if application.revision != lane.revision:
            lane.revision = application.revision
            await self.retry_now(app_id)
            return
        rows = await self._due(app_id, lane, now_ns, _TOLD_AT_ONCE)
        # Who was told lines up behind who was not, so that the next look finds those.
        if await self._attempts.tell(rows, trouble, now_ns):
            self.wake()

    def _start(self, row: SegmentRow) -> None:
        lane = self._lanes[row.app_id]
        lane.in_hand.add(row.file_id)
        self._last_app_id = row.app_id
        task = asyncio.create_task(self._upload(row, lane), name=_task_name(row.file_id))
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            lane.in_hand.discard(row.file_id)
            if not task.cancelled() and (error := task.exception()):
                _log.error("segment_upload_lost", app_id=row.app_id, file_id=row.file_id, exc_info=error)
                lane.failed(_internal(error), self._clock.now_ns(), self._random)
            self.wake()

        task.add_done_callback(done)

    async def _upload(self, row: SegmentRow, lane: Lane) -> None:
        try:
            await self._attempts.upload(row, lane)
        except StoreError as error:
            await self._delay(row, lane, error)
            return
        except GivenUp:
            return
        except Exception as error:
            _log.exception("segment_upload_failed", app_id=row.app_id, file_id=row.file_id)
            await self._delay(row, lane, _internal(error))
            return
        if lane.trouble:
            _log.info("store_recovered", app_id=row.app_id, failures=lane.failures)
        lane.succeeded()
        self._uploaded_files += 1
        self._uploaded_bytes += row.size_bytes
        await self._attempts.remove_file(row)

    async def _delay(self, row: SegmentRow, lane: Lane, error: StoreError) -> None:
        self._failed_attempts += 1
        now_ns = self._clock.now_ns()
        if isinstance(error, SourceDamaged | ObjectDiffers):
            # Of this segment alone: the others may pass.
            seconds = wait_seconds(error, row.upload_attempts + 1, self._random)
            next_ns = now_ns + round(seconds * NANOSECONDS)
            with suppress(GivenUp):
                await self._attempts.delay(row, error, next_ns, is_warning=False)
        else:
            next_ns = lane.failed(error, now_ns, self._random)
            is_warning = lane.should_warn(error, now_ns)
            with suppress(GivenUp):
                await self._attempts.delay(row, error, next_ns, is_warning=is_warning)


def _task_name(file_id: str) -> str:
    return f"upload-{file_id}"


def _internal(error: BaseException) -> StoreError:
    return StoreUnavailable("Internal", f"The server failed: {type(error).__name__}. Its log has more.")
