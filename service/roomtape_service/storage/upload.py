"""Segments on their way from the spool to their stores.

1. What is to do stands in the database alone: SPOOLED and UPLOADING segments whose next attempt is due.
2. An attempt puts the file and has the store confirm it. Then state, URL and event are one unit of work.
3. Only then the spool file goes. After a crash anywhere before, the segment is put again; a large one goes on.
4. Of files that still grow, parts go as they become final, in what room the complete ones leave.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError

from roomtape.v1 import segment_pb2
from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database import lanes, uploads
from roomtape_service.database.database import Database
from roomtape_service.database.segments import SegmentRow, segments_of_recording
from roomtape_service.storage.attempt import Attempts, OnUploaded, RemoveSpooled
from roomtape_service.storage.lane import Lane, Way, wait_seconds
from roomtape_service.storage.leftovers import Leftovers
from roomtape_service.storage.multipart import Multiparts
from roomtape_service.storage.notices import GivenUp, Notices
from roomtape_service.storage.part import PART_BYTES
from roomtape_service.storage.store import (
    ObjectDiffers,
    PartsMissing,
    SourceDamaged,
    StoreError,
    StoreUnavailable,
)
from roomtape_service.storage.stores import Stores
from roomtape_service.storage.turns import LOOK_NS, PARALLEL_UPLOADS, Turns

__all__ = ["UploadStatistics", "Uploads"]

# Of all attempts, so many at most are of files that grow: there is always room for one that is complete.
_PARALLEL_GROWING = 12
# Starts the names of tasks that send parts of files that grow.
_GROWING = "grow-"

_MENDABLE = frozenset({"SourceMissing", "SourceDiffers"})
"""Codes of SourceDamaged that waiting does not help; a file that can't be read now may be read later."""

Mend = Callable[[SegmentRow], Awaitable[bool]]
"""Keeps what is whole of a damaged file, or makes it LOST; returns whether its row changed."""

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
    on_secondary: Sequence[str]
    """Applications whose segments go to the secondary store."""


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
        part_bytes: int = PART_BYTES,
        mend: Mend | None = None,
    ) -> None:
        """`part_bytes`: files above are put in parts of this size. `mend` is called for a file that was damaged."""
        self._mend = mend
        self._database = database
        self._stores = stores
        self._clock = clock
        self._random = randomness or random.Random()
        multipart = Multiparts(database, stores.memory, part_bytes=part_bytes)
        self._attempts = Attempts(database, stores, multipart, on_uploaded, remove_spooled)
        self._notices = Notices(database)
        self._turns = Turns(database, self._attempts, self._notices)
        self._leftovers = Leftovers(database, stores, clock, self._random)
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._is_closing = False
        self._runner: asyncio.Task[None] | None = None
        self._uploaded_files = 0
        self._uploaded_bytes = 0
        self._failed_attempts = 0

    async def run(self) -> None:
        """Uploads until `aclose`; returns then."""
        self._runner = asyncio.current_task()
        leftovers = asyncio.create_task(self._leftovers.run(), name="leftovers")
        is_taken_up = False
        try:
            while not self._is_closing:
                self._wake.clear()
                try:
                    if not is_taken_up:
                        await self._take_up()
                        is_taken_up = True
                    seconds = await self._start_due()
                except Exception:
                    # Whatever it is, of one application say: the others' files must not wait for the next start.
                    _log.exception("uploads_not_read")
                    seconds = LOOK_NS / NANOSECONDS
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._wake.wait()
        finally:
            tasks = [*self._tasks, leftovers]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """There may be something to upload. May be called at any time."""
        self._wake.set()

    def settings_changed(self) -> None:
        """Those of an application: its stores may be mended. May be called at any time."""
        self._leftovers.retry_now()
        self._wake.set()

    async def grown(self, recording_id: str, segment: int, sizes: Mapping[int, int]) -> None:
        """Parts of a segment's files have become final: `sizes` are checkpointed bytes by container."""
        if self._is_closing:
            return
        rows = await self._database.read(
            lambda connection: segments_of_recording(connection, recording_id, segment)
        )
        for row in rows:
            if row.state == segment_pb2.SEGMENT_STATE_RECORDING and (size := sizes.get(row.container)):
                self._turns.way(row.app_id).growing[row.file_id] = size
        self.wake()

    async def retry_now(self, app_id: str) -> None:
        """All segments of the application are due: its settings changed, or somebody mended its store."""
        await self._turns.retry(app_id)
        self.wake()

    async def retry_troubled(self) -> None:
        """All that waits for a store that failed is due: what was wrong with some may be mended."""
        troubled = [
            app_id for app_id, way in self._turns.ways.items() if way.first.trouble or way.second.trouble
        ]
        for app_id in troubled:
            await self._turns.retry(app_id)
        self.settings_changed()

    async def stop(self, file_id: str) -> None:
        """Ends the attempt that a file which was given up may be in, and waits for its end."""
        for task in [task for task in self._tasks if task.get_name() == _task_name(file_id)]:
            task.cancel()
            await asyncio.wait((task,))
        self._leftovers.wake()

    async def aclose(self) -> None:
        """Ends `run`, and waits. What was being uploaded is uploaded after the next start."""
        self._is_closing = True
        self.wake()
        if self._runner is not None:
            await asyncio.wait((self._runner,))

    def statistics(self) -> UploadStatistics:
        """A snapshot."""
        troubles = {app_id: way.lane.trouble or way.first.trouble for app_id, way in self._turns.ways.items()}
        return UploadStatistics(
            uploaded_files=self._uploaded_files,
            uploaded_bytes=self._uploaded_bytes,
            failed_attempts=self._failed_attempts,
            running=len(self._tasks),
            troubles={app_id: trouble.code for app_id, trouble in troubles.items() if trouble},
            on_secondary=[app_id for app_id, way in self._turns.ways.items() if way.uses_second],
        )

    async def _take_up(self) -> None:
        """Goes on where the last node stopped."""
        with suppress(StoreError):
            await self._stores.remove_stale_parts(self._clock.now_ns())
        self._turns.take_up(await self._database.read(lanes.failing_lanes))
        for row in await self._database.read(uploads.stored_on_spool):
            if self._is_closing:
                return
            await self._remove_file(row)

    async def _remove_file(self, row: SegmentRow) -> None:
        """Where it can't be, such as with a database without room, the next start does it."""
        try:
            await self._attempts.remove_file(row)
        except (SQLAlchemyError, OSError):
            _log.exception("spool_file_not_forgotten", file_id=row.file_id)

    async def _start_due(self) -> float:
        """Starts what is due and fits. Returns after how many seconds to look again without a wake."""
        now_ns = self._clock.now_ns()
        earliest = await self._database.read(uploads.earliest_uploads)
        turn = await self._turns.choose(earliest, now_ns, PARALLEL_UPLOADS - len(self._tasks))
        for row, lane in turn.segments:
            self._start(row, lane)
        next_ns = min(turn.next_ns, await self._start_growing(earliest, now_ns))
        return max(0.0, (next_ns - self._clock.now_ns()) / NANOSECONDS)

    async def _start_growing(self, waiting: Iterable[str], now_ns: int) -> int:
        """Starts on files that grow, in what room is left. Returns when to look again."""
        next_ns = now_ns + LOOK_NS
        busy = set(waiting)
        for app_id in self._turns.in_turn(app_id for app_id, way in self._turns.ways.items() if way.growing):
            way = self._turns.ways[app_id]
            lane = way.first
            if lane.trouble and app_id in busy:
                continue
            if lane.trouble and await self._turns.is_changed(app_id):
                lane.next_ns = 0
            if lane.next_ns > now_ns:
                next_ns = min(next_ns, lane.next_ns)
            growing = sum(task.get_name().startswith(_GROWING) for task in self._tasks)
            slots = min(PARALLEL_UPLOADS - len(self._tasks), _PARALLEL_GROWING - growing)
            room = min(lane.free_for_growing(now_ns), slots)
            ready = [file_id for file_id in way.growing if file_id not in way.in_hand]
            for file_id in ready[: max(0, room)]:
                name = f"{_GROWING}{file_id}"
                self._run(app_id, file_id, lane, self._grow(app_id, file_id, way), name)
        return next_ns

    def _start(self, row: SegmentRow, lane: Lane) -> None:
        way = self._turns.ways[row.app_id]
        way.growing.pop(row.file_id, None)
        self._turns.served(row.app_id)
        self._run(row.app_id, row.file_id, lane, self._upload(row, way, lane), _task_name(row.file_id))

    def _run(
        self, app_id: str, file_id: str, lane: Lane, work: Coroutine[None, None, None], name: str
    ) -> None:
        lane.in_hand.add(file_id)
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            lane.in_hand.discard(file_id)
            if not task.cancelled() and (error := task.exception()):
                _log.error("segment_upload_lost", app_id=app_id, file_id=file_id, exc_info=error)
                lane.failed(_internal(error), self._clock.now_ns(), self._random)
            self._leftovers.wake()
            self.wake()

        task.add_done_callback(done)

    async def _upload(self, row: SegmentRow, way: Way, lane: Lane) -> None:
        try:
            await self._attempts.upload(row, way, lane)
        except StoreError as error:
            with suppress(GivenUp):
                await self._delay(row, way, lane, error)
            return
        except GivenUp:
            self._notices.forget(row.file_id)
            return
        except Exception as error:
            _log.exception("segment_upload_failed", app_id=row.app_id, file_id=row.file_id)
            with suppress(GivenUp):
                await self._delay(row, way, lane, _internal(error))
            return
        self._notices.forget(row.file_id)
        self._takes(row.app_id, way, lane)
        self._uploaded_files += 1
        self._uploaded_bytes += row.size_bytes
        await self._remove_file(row)

    async def _grow(self, app_id: str, file_id: str, way: Way) -> None:
        size = way.growing[file_id]
        lane = way.first
        try:
            is_more = await self._attempts.send_settled(app_id, file_id, way, size)
        except (SourceDamaged, PartsMissing):
            # What is wrong with the file is found, and told, when it is complete. Parts that the store lost are sent
            # again with those that become final next.
            way.growing.pop(file_id, None)
            return
        except StoreError as error:
            now_ns = self._clock.now_ns()
            self._failed_attempts += 1
            lane.failed(error, now_ns, self._random)
            way.failing_ns = way.failing_ns or now_ns
            await self._notices.fail(
                app_id, error, failing_store=lane.store, is_warning=lane.should_warn(error, now_ns)
            )
            return
        if not is_more and way.growing.get(file_id) == size:
            del way.growing[file_id]
        self._takes(app_id, way, lane)

    def _takes(self, app_id: str, way: Way, lane: Lane) -> None:
        if lane.trouble:
            _log.info("store_recovered", app_id=app_id, failures=lane.failures)
        lane.succeeded()
        if lane is way.first:
            way.failing_ns = None
            way.uses_second = False
            way.second.succeeded()

    async def _delay(self, row: SegmentRow, way: Way, lane: Lane, error: StoreError) -> None:
        self._failed_attempts += 1
        if await self._was_mended(row, error):
            return
        now_ns = self._clock.now_ns()
        if isinstance(error, SourceDamaged | ObjectDiffers):
            # Of this segment alone: the others may pass.
            seconds = wait_seconds(error, row.upload_attempts + 1, self._random)
            next_ns = now_ns + round(seconds * NANOSECONDS)
            await self._notices.delay(row, error, next_ns, failing_store="", is_warning=False)
            return
        next_ns = lane.failed(error, now_ns, self._random)
        failing_store = ""
        if lane is way.first:
            way.failing_ns = way.failing_ns or now_ns
            failing_store = lane.store
        if lane is not way.lane:
            # The try of the first store failed; the secondary one takes the segment.
            next_ns = now_ns
        is_warning = lane.should_warn(error, now_ns)
        await self._notices.delay(row, error, next_ns, failing_store=failing_store, is_warning=is_warning)

    async def _was_mended(self, row: SegmentRow, error: StoreError) -> bool:
        """Whether a damaged file is another now, or given up."""
        if self._mend is None or not isinstance(error, SourceDamaged) or error.code not in _MENDABLE:
            return False
        try:
            return await self._mend(row)
        except (SQLAlchemyError, OSError):
            _log.exception("segment_not_mended", app_id=row.app_id, file_id=row.file_id)
            return False


def _task_name(file_id: str) -> str:
    return f"upload-{file_id}"


def _internal(error: BaseException) -> StoreError:
    return StoreUnavailable("Internal", f"The server failed: {type(error).__name__}. Its log has more.")
