"""Files are made of the segments that were ordered to be joined.

1. What is to make stands in the database alone: rows in state RECORDING. One at a time, by a process of its own.
2. A file that is whole becomes SPOOLED, and is uploaded as any other. After a crash before, it is made from scratch.
3. A store that does not give its segments is asked again for ever, other orders meanwhile. A segment that is not what
   was recorded, that was deleted, or that lies in an archive, ends the order: its file is LOST.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import event_pb2, media_pb2, segment_pb2, task_pb2
from roomtape_service import failpoints
from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.database.database import Database
from roomtape_service.database.joined import complete_joined, spooled_joins, unfinished_joins
from roomtape_service.database.segments import (
    CompletedSegment,
    SegmentRow,
    find_segment,
    segment_message,
    segments_of_recording,
    set_state,
)
from roomtape_service.database.tasks import find_task
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.database.uploads import forget_spool_file
from roomtape_service.events.build import segment_event
from roomtape_service.ids import Ids
from roomtape_service.library.join_plan import JoinPlan, NotJoinableError, plan_join
from roomtape_service.library.join_process import JoinProcessLost, run_join
from roomtape_service.library.join_sources import JoinLost, JoinSources
from roomtape_service.recording.joining.job import JoinFailure, JoinFault, JoinJob, JoinResult, JoinSource
from roomtape_service.recording.vocabulary import Container
from roomtape_service.rules.naming import EXTENSIONS
from roomtape_service.storage.lane import wait_seconds
from roomtape_service.storage.store import (
    StoreError,
    StoreUnavailable,
)
from roomtape_service.storage.stores import Stores

__all__ = ["JOINED_NAME", "JoinStatistics", "Joins"]

JOINED_NAME: Final = ".joined"
"""The folder of the spool in which files are made; no worker's, so recovery passes it over."""

_FOLDER_MODE = 0o750
_LOOK_SECONDS = 10.0
_CONTAINERS = {
    media_pb2.CONTAINER_MP3: Container.MP3,
    media_pb2.CONTAINER_OGG: Container.OGG,
    media_pb2.CONTAINER_WAV: Container.WAV,
    media_pb2.CONTAINER_AAC: Container.AAC,
    media_pb2.CONTAINER_M4A: Container.M4A,
}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JoinStatistics:
    """What happened since the start."""

    made: int
    waiting: int
    """Orders that failed, and are tried again."""


class Joins:
    """Makes files until it is closed. `run` owns everything that changes."""

    def __init__(
        self,
        database: Database,
        stores: Stores,
        spool_root: Path,
        clock: Clock,
        ids: Ids,
        *,
        on_spooled: Callable[[], None],
        has_room: Callable[[int], bool],
        randomness: random.Random | None = None,
    ) -> None:
        """`has_room`: whether the spool may take a file of so many bytes now."""
        self._database = database
        self._sources = JoinSources(database, stores)
        self._folder = spool_root / JOINED_NAME
        self._clock = clock
        self._ids = ids
        self._on_spooled = on_spooled
        self._has_room = has_room
        self._random = randomness or random.Random()
        self._made = 0
        self._failures: dict[str, int] = {}
        self._next_ns: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._is_closing = False
        self._runner: asyncio.Task[None] | None = None
        self._making: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Makes files until `aclose`; returns then."""
        self._runner = asyncio.current_task()
        is_clean = False
        try:
            while not self._is_closing:
                self._wake.clear()
                try:
                    if not is_clean:
                        await self._clean()
                        is_clean = True
                    seconds = await self._make_due()
                except Exception:
                    _log.exception("joins_not_read")
                    seconds = _LOOK_SECONDS
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._wake.wait()
        finally:
            if self._making is not None:
                self._making.cancel()
                await asyncio.wait((self._making,))

    def wake(self) -> None:
        """There may be an order."""
        self._wake.set()

    def retry_now(self) -> None:
        """What failed is due: the settings of an application changed."""
        self._next_ns.clear()
        self._wake.set()

    async def mend(self, row: SegmentRow) -> bool:
        """Upload found a file that was made to be another than it was, or gone: it is LOST, and may be ordered again.

        Returns whether it was so. Raises OSError, and what the database raises.
        """
        assert row.spool_path is not None
        path = Path(row.spool_path)
        if await asyncio.to_thread(_sha256, path) == row.sha256:
            return False
        await self._lose(
            row, JoinLost("SourceDamaged", f"{path} is gone, or not what was made. Order it again.")
        )
        await asyncio.to_thread(_remove, path)
        return True

    def statistics(self) -> JoinStatistics:
        """A snapshot."""
        return JoinStatistics(made=self._made, waiting=len(self._failures))

    async def aclose(self) -> None:
        """Ends `run`, and waits. What was being made is made after the next start. Idempotent."""
        self._is_closing = True
        self.wake()
        if self._making is not None:
            self._making.cancel()
        if self._runner is not None:
            await asyncio.wait((self._runner,))

    async def _clean(self) -> None:
        """Removes what ended nodes did not finish."""
        known = set(await self._database.read(spooled_joins))

        def clean() -> None:
            self._folder.mkdir(_FOLDER_MODE, parents=True, exist_ok=True)
            for path in self._folder.iterdir():
                if str(path) not in known:
                    _remove(path)

        await asyncio.to_thread(clean)

    async def _make_due(self) -> float:
        """Makes what is due, one after the other. Returns after how many seconds to look again."""
        while not self._is_closing:
            rows = await self._database.read(unfinished_joins)
            now_ns = self._clock.now_ns()
            self._next_ns = {row.file_id: self._next_ns.get(row.file_id, 0) for row in rows}
            due = min(rows, key=lambda row: self._next_ns[row.file_id], default=None)
            if due is None:
                return _LOOK_SECONDS
            wait_ns = self._next_ns[due.file_id] - now_ns
            if wait_ns > 0:
                return min(_LOOK_SECONDS, wait_ns / NANOSECONDS)
            self._making = asyncio.create_task(self._make(due), name=f"join-{due.file_id}")
            await asyncio.wait((self._making,))
            if not self._making.cancelled() and (error := self._making.exception()):
                raise error
        return 0.0

    async def _make(self, row: SegmentRow) -> None:
        path = self._folder / f"{row.file_id}-{self._ids.token()}.{EXTENSIONS[_container(row)]}"
        is_kept = False
        try:
            plan = await self._plan(row)
            job = await self._job(row, plan, path)
            async with aclosing(self._sources.bytes(plan)) as sources:
                answer = await run_join(job, sources)
            if isinstance(answer, JoinFailure):
                raise _error_of(answer, plan)
            # A commit that failed may be there all the same: then the row names the file. The next start knows.
            is_kept = True
            is_kept = await self._complete(row, plan, path, answer)
            if is_kept:
                _log.info("segments_joined", app_id=row.app_id, file_id=row.file_id, segments=row.joined)
                self._failures.pop(row.file_id, None)
                self._made += 1
                self._on_spooled()
        except JoinLost as error:
            await self._lose(row, error)
        except (StoreError, JoinProcessLost) as error:
            self._delay(row, error)
        except Exception as error:
            _log.exception("join_failed", app_id=row.app_id, file_id=row.file_id)
            self._delay(row, error)
        finally:
            if not is_kept:
                await asyncio.to_thread(_remove, path)

    async def _plan(self, row: SegmentRow) -> JoinPlan:
        async def read(connection: AsyncConnection) -> Sequence[SegmentRow]:
            return await segments_of_recording(connection, row.recording_id)

        rows = await self._database.read(read)
        last = row.segment_id + row.joined - 1
        try:
            return plan_join([each for each in rows if each.container == row.container], row.segment_id, last)
        except NotJoinableError as error:
            raise JoinLost("SegmentsNotJoinable", str(error)) from error

    async def _job(self, row: SegmentRow, plan: JoinPlan, path: Path) -> JoinJob:
        task = await self._database.read(lambda connection: find_task(connection, row.app_id, row.task_id))
        assert task is not None
        size_bytes = sum(segment.size_bytes for segment in plan.segments)
        if _container(row) == media_pb2.CONTAINER_WAV:
            size_bytes = plan.samples * row.channels * 2
        if not self._has_room(size_bytes):
            raise StoreUnavailable("SpoolFull", f"The spool has no room for a file of {size_bytes} bytes.")
        return JoinJob(
            container=_CONTAINERS[_container(row)],
            path=str(path),
            rate=row.sample_rate,
            channels=row.channels,
            bitrate=task_pb2.OutputSettings.FromString(task.output).audio_bitrate_bps,
            samples=plan.samples,
            sources=tuple(
                JoinSource(
                    segment.size_bytes, segment.sha256, start, segment.sample_count, segment.encoder_delay
                )
                for segment, start in zip(plan.segments, plan.starts, strict=True)
            ),
        )

    async def _complete(self, row: SegmentRow, plan: JoinPlan, path: Path, answer: JoinResult) -> bool:
        first, last = plan.segments[0], plan.segments[-1]
        assert last.end_ns is not None
        facts = CompletedSegment(
            start_ns=first.start_ns,
            end_ns=last.end_ns,
            duration_ns=answer.samples * NANOSECONDS // row.sample_rate,
            sample_rate=row.sample_rate,
            channels=row.channels,
            sample_count=answer.samples,
            encoder_delay=answer.encoder_delay,
            size_bytes=answer.size_bytes,
            sha256=answer.sha256,
            interrupted=last.interrupted,
            statistics=_statistics(plan.segments).SerializeToString(),
            resume="{}",
        )

        async def complete(uow: UnitOfWork) -> bool:
            return await complete_joined(uow.connection, row.file_id, str(path), facts)

        return await self._database.write(complete)

    async def _lose(self, row: SegmentRow, error: JoinLost) -> None:
        self._failures.pop(row.file_id, None)
        _log.error("join_given_up", app_id=row.app_id, file_id=row.file_id, code=error.code, error=str(error))

        async def lose(uow: UnitOfWork) -> None:
            await uow.lock_application(row.app_id)
            current = await find_segment(uow.connection, row.app_id, row.file_id)
            if current is None or current.state >= segment_pb2.SEGMENT_STATE_UPLOADED:
                return
            await set_state(uow.connection, row.file_id, segment_pb2.SEGMENT_STATE_LOST)
            await forget_spool_file(uow.connection, row.file_id)
            lost = await find_segment(uow.connection, row.app_id, row.file_id)
            assert lost is not None
            event = segment_event(event_pb2.EVENT_TYPE_SEGMENT_LOST, row.app_id, segment_message(lost))
            event.segment.error_code = error.code
            event.segment.message = str(error)
            await uow.append(event)

        await self._database.write(lose)

    def _delay(self, row: SegmentRow, error: Exception) -> None:
        failures = self._failures[row.file_id] = self._failures.get(row.file_id, 0) + 1
        reason = error if isinstance(error, StoreError) else StoreUnavailable("Internal", str(error))
        seconds = wait_seconds(reason, failures, self._random)
        self._next_ns[row.file_id] = self._clock.now_ns() + round(seconds * NANOSECONDS)
        _log.warning("join_delayed", app_id=row.app_id, file_id=row.file_id, error=str(error))


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


def _remove(path: Path) -> None:
    failpoints.hit("joined.remove")
    path.unlink(missing_ok=True)


def _container(row: SegmentRow) -> media_pb2.Container.ValueType:
    return media_pb2.Container.ValueType(row.container)


def _error_of(failure: JoinFailure, plan: JoinPlan) -> Exception:
    if failure.fault is JoinFault.DISK:
        return StoreUnavailable("SpoolUnwritable", failure.message)
    segment = plan.segments[failure.source]
    return JoinLost("SourceDiffers", f"Segment {segment.segment_id} in {segment.store}: {failure.message}.")


def _statistics(rows: Sequence[SegmentRow]) -> segment_pb2.FrameStatistics:
    total = segment_pb2.FrameStatistics()
    for row in rows:
        each = segment_pb2.FrameStatistics.FromString(row.statistics or b"")
        total.recorded += each.recorded
        total.lost += each.lost
        total.duplicated += each.duplicated
        total.reordered += each.reordered
        total.rejected += each.rejected
    return total
