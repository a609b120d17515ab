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
from itertools import zip_longest

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

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

__all__ = ["UploadStatistics", "Uploads"]

_PARALLEL_UPLOADS = 16
# Of these, so many at most may be tries of stores in trouble: each can hang until its timeout.
_PARALLEL_TRIES = 8
# And so many of files that grow: there is always room for one that is complete.
_PARALLEL_GROWING = 12
# Wakes come from this process; what others put into the database, such as new settings, is found by looking.
_LOOK_SECONDS = 10.0
_TOLD_AT_ONCE = 64
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
        self._leftovers = Leftovers(database, stores, clock, self._random)
        self._ways: dict[str, Way] = {}
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
        leftovers = asyncio.create_task(self._leftovers.run(), name="leftovers")
        try:
            with suppress(StoreError):
                await self._stores.remove_stale_parts(self._clock.now_ns())
            for known in await self._database.read(lanes.failing_lanes):
                way = self._ways.setdefault(known.app_id, Way())
                way.first.store = known.store
                way.failing_ns, way.uses_second = known.failing_ns, known.uses_secondary
            for row in await self._database.read(uploads.stored_on_spool):
                if self._is_closing:
                    return
                try:
                    await self._attempts.remove_file(row)
                except (SQLAlchemyError, OSError):
                    # A database without room; the next start does it.
                    _log.exception("spool_file_not_forgotten", file_id=row.file_id)
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
                self._ways.setdefault(row.app_id, Way()).growing[row.file_id] = size
        self.wake()

    async def retry_now(self, app_id: str) -> None:
        """All segments of the application are due: its settings changed, or somebody mended its store."""
        await self._database.write(
            lambda unit: uploads.hasten_uploads(unit.connection, app_id),
            name="storage.upload.Uploads.retry_now",
        )
        if way := self._ways.get(app_id):
            way.first.next_ns = way.second.next_ns = 0
        self.wake()

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
        troubles = {app_id: way.lane.trouble or way.first.trouble for app_id, way in self._ways.items()}
        return UploadStatistics(
            uploaded_files=self._uploaded_files,
            uploaded_bytes=self._uploaded_bytes,
            failed_attempts=self._failed_attempts,
            running=len(self._tasks),
            troubles={app_id: trouble.code for app_id, trouble in troubles.items() if trouble},
            on_secondary=[app_id for app_id, way in self._ways.items() if way.uses_second],
        )

    async def _start_due(self) -> float:
        """Starts what is due and fits. Returns after how many seconds to look again without a wake."""
        now_ns = self._clock.now_ns()
        earliest = await self._database.read(uploads.earliest_uploads)
        ways = self._ways
        self._ways = {i: way for i, way in ways.items() if i in earliest or not way.is_idle}
        for app_id in earliest:
            self._ways.setdefault(app_id, Way())
        next_ns = now_ns + round(_LOOK_SECONDS * NANOSECONDS)
        found: list[Sequence[tuple[SegmentRow, Lane]]] = []
        tries = _PARALLEL_TRIES - sum(
            len(lane.in_hand)
            for way in self._ways.values()
            for lane in (way.first, way.second)
            if lane.trouble
        )
        for app_id in self._in_turn(earliest):
            way, due_ns = self._ways[app_id], earliest[app_id]
            next_ns = min(next_ns, await self._choose_lane(app_id, way, now_ns))
            chosen = await self._choose(app_id, way, due_ns, now_ns, tries)
            tries -= sum(1 for _, lane in chosen if lane.trouble)
            found.append(chosen)
            next_ns = min(next_ns, _look_ns(way, due_ns, now_ns))
            if way.lane.trouble and max(due_ns, way.lane.next_ns) > now_ns:
                await self._wait(app_id, way, way.lane.trouble, now_ns)
            if sum(map(len, found)) >= _PARALLEL_UPLOADS:
                break
        for turn in zip_longest(*found):
            for pair in turn:
                if pair is not None and len(self._tasks) < _PARALLEL_UPLOADS:
                    self._start(*pair)
        next_ns = min(next_ns, await self._start_growing(earliest, now_ns))
        return max(0.0, (next_ns - self._clock.now_ns()) / NANOSECONDS)

    def _in_turn(self, app_ids: Iterable[str]) -> Sequence[str]:
        """Round robin: who comes after the last one that was served is first."""
        ordered = sorted(app_ids)
        first = next((n for n, app_id in enumerate(ordered) if app_id > self._last_app_id), 0)
        return ordered[first:] + ordered[:first]

    async def _choose_lane(self, app_id: str, way: Way, now_ns: int) -> int:
        """Decides by which lane segments go. Returns when that may change."""
        if way.failing_ns is None or (way.first.trouble is None and not way.uses_second):
            return now_ns + round(_LOOK_SECONDS * NANOSECONDS)
        try:
            _, places = await self._attempts.destinations(app_id)
        except StoreError:
            return now_ns + round(_LOOK_SECONDS * NANOSECONDS)
        if places.second is None:
            way.uses_second = False
        elif not way.uses_second and way.first.trouble is not None:
            switch_ns = way.failing_ns + places.second_after_ns
            if switch_ns > now_ns:
                return switch_ns
            first, second = places.first.store.identity, places.second.store.identity
            await self._notices.switch(app_id, first, second, way.first.trouble)
            way.uses_second = True
            self.wake()
        return now_ns + round(_LOOK_SECONDS * NANOSECONDS)

    async def _choose(
        self, app_id: str, way: Way, due_ns: int, now_ns: int, tries: int
    ) -> Sequence[tuple[SegmentRow, Lane]]:
        """Segments that may start now, each with its lane."""
        if due_ns > now_ns:
            return ()
        slots = _PARALLEL_UPLOADS - len(self._tasks)
        room = min(way.lane.free(now_ns), slots)
        if way.lane.trouble:
            room = min(room, tries)
        # One segment tries whether the first store takes something again.
        can_probe = way.uses_second and not way.first.in_hand
        probes = min(1, way.first.free(now_ns), slots, tries) if can_probe else 0
        if room + probes <= 0:
            return ()
        rows = list(await self._due(app_id, way, now_ns, max(0, room) + max(0, probes)))
        chosen: list[tuple[SegmentRow, Lane]] = []
        if probes > 0 and rows:
            # Rather one that was not begun elsewhere.
            probe = min(rows, key=lambda row: row.upload_attempts)
            rows.remove(probe)
            chosen.append((probe, way.first))
        return [*chosen, *((row, way.lane) for row in rows[: max(0, room)])]

    async def _due(self, app_id: str, way: Way, now_ns: int, limit: int) -> Sequence[SegmentRow]:
        async def read(connection: AsyncConnection) -> Sequence[SegmentRow]:
            in_hand = sorted(way.in_hand)
            return await uploads.due_segments(connection, app_id, now_ns, without=in_hand, limit=limit)

        return await self._database.read(read)

    async def _wait(self, app_id: str, way: Way, trouble: StoreError, now_ns: int) -> None:
        """Segments wait with their lane; their watchers hear why without a try for each."""
        if await self._is_changed(app_id, way):
            await self.retry_now(app_id)
            return
        rows = await self._due(app_id, way, now_ns, _TOLD_AT_ONCE)
        # Who was told lines up behind who was not, so that the next look finds those.
        if await self._notices.tell(rows, trouble, now_ns):
            self.wake()

    async def _is_changed(self, app_id: str, way: Way) -> bool:
        """Whether the application is another one than when its stores were last asked."""
        revision = await self._attempts.revision(app_id)
        is_changed = revision != way.revision
        way.revision = revision
        return is_changed

    async def _start_growing(self, waiting: Iterable[str], now_ns: int) -> int:
        """Starts on files that grow, in what room is left. Returns when to look again."""
        next_ns = now_ns + round(_LOOK_SECONDS * NANOSECONDS)
        busy = set(waiting)
        for app_id in self._in_turn(app_id for app_id, way in self._ways.items() if way.growing):
            way = self._ways[app_id]
            lane = way.first
            if lane.trouble and app_id in busy:
                continue
            if lane.trouble and await self._is_changed(app_id, way):
                lane.next_ns = 0
            if lane.next_ns > now_ns:
                next_ns = min(next_ns, lane.next_ns)
            growing = sum(task.get_name().startswith(_GROWING) for task in self._tasks)
            slots = min(_PARALLEL_UPLOADS - len(self._tasks), _PARALLEL_GROWING - growing)
            room = min(lane.free_for_growing(now_ns), slots)
            ready = [file_id for file_id in way.growing if file_id not in way.in_hand]
            for file_id in ready[: max(0, room)]:
                name = f"{_GROWING}{file_id}"
                self._run(app_id, file_id, lane, self._grow(app_id, file_id, way), name)
        return next_ns

    def _start(self, row: SegmentRow, lane: Lane) -> None:
        way = self._ways[row.app_id]
        way.growing.pop(row.file_id, None)
        self._last_app_id = row.app_id
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
        await self._attempts.remove_file(row)

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


def _look_ns(way: Way, due_ns: int, now_ns: int) -> int:
    """When something of the way is due that is not yet."""
    times = [max(due_ns, way.lane.next_ns)]
    if way.uses_second:
        times.append(max(due_ns, way.first.next_ns))
    return min((time_ns for time_ns in times if time_ns > now_ns), default=now_ns + 3600 * NANOSECONDS)


def _task_name(file_id: str) -> str:
    return f"upload-{file_id}"


def _internal(error: BaseException) -> StoreError:
    return StoreUnavailable("Internal", f"The server failed: {type(error).__name__}. Its log has more.")
