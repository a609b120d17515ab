"""What workers report of recordings, made state and events."""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

from roomtape.v1 import error_pb2, event_pb2, task_pb2
from roomtape_service.database import recordings as recording_rows
from roomtape_service.database import segments as segment_rows
from roomtape_service.database import spooled
from roomtape_service.database import tasks as task_rows
from roomtape_service.database.database import Database
from roomtape_service.database.gaps import GapRow
from roomtape_service.database.segments import SegmentRow
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.events.build import warning_event
from roomtape_service.recording import protocol
from roomtape_service.recording.front.losses import WorkerLoss
from roomtape_service.spool.aside import set_aside
from roomtape_service.spool.records import SpoolRecords
from roomtape_service.spool.recovery import RecoveredSegment, Recovery
from roomtape_service.spool.repair import mend_segment
from roomtape_service.tasks.completion import end_recording
from roomtape_service.tasks.files import CONTAINER_NUMBERS
from roomtape_service.tasks.recovered import RecoveredFacts, spool_records
from roomtape_service.tasks.segments import SegmentFacts
from roomtape_service.tasks.task import task_proto
from roomtape_service.tasks.telling import tell_gap, tell_interruption
from roomtape_service.tasks.warnings import PacedWarning, WarningPace

__all__ = ["Facts", "OnGrown"]

log = structlog.get_logger(__name__)

_RETRIES = 5
_RETRY_SECONDS = 0.5
_WAITING_SECONDS = 5.0
"""How often a fact is tried again while the database takes nothing, say for a full disk."""

_WORKER_LOST = "WORKER_LOST"
_WORKER_LOST_MESSAGE = (
    "A worker ended unexpectedly; recording goes on in the next segment. See the server's log."
)

_GAP_REASONS = {
    protocol.GapReason.PUBLISHER_LOST: event_pb2.GAP_REASON_PUBLISHER_LOST,
    protocol.GapReason.INTERRUPTED: event_pb2.GAP_REASON_INTERRUPTED,
    protocol.GapReason.SPOOL_FULL: event_pb2.GAP_REASON_SPOOL_FULL,
}

_SPOOL_FULL = event_pb2.INTERRUPTION_CAUSE_SPOOL_FULL

_UNAVAILABLE = (OperationalError, InterfaceError, sqlite3.OperationalError, OSError)
"""What a database raises that takes nothing from anybody."""


@dataclass(frozen=True, slots=True)
class _Found:
    """A segment that recovery found."""

    segment: RecoveredSegment
    cause: event_pb2.InterruptionCause.ValueType


@dataclass(frozen=True, slots=True)
class _Searched:
    """All that recovery could find of a recording was told: what is missing is lost."""

    recording_id: str
    folder: Path | None
    living: Collection[Path] = ()


OnGrown = Callable[[str, int, Mapping[int, int]], Awaitable[None]]
"""Called with recording, segment and checkpointed bytes by the number of the container, after the segment's start."""

_Fact = protocol.WorkerOp | _Found | _Searched


class Facts:
    """Stores facts of each recording in their order; those of different recordings go side by side.

    While the database takes nothing, facts wait. One that it refuses is not lost: the spool's journal has it, and the
    next start reads it from there.
    """

    def __init__(
        self,
        database: Database,
        segments: SegmentFacts,
        on_spooled: Callable[[], None],
        spool_root: Path,
        *,
        on_grown: OnGrown | None = None,
        waiting_seconds: float = _WAITING_SECONDS,
    ) -> None:
        """`on_grown` hears of files that grow; `waiting_seconds`: how often a fact is tried again that waits."""
        self._on_grown = on_grown
        self._waiting_seconds = waiting_seconds
        self._database = database
        self._segments = segments
        self._on_spooled = on_spooled
        self._spool_root = spool_root
        self._found = RecoveredFacts(segments, spool_root)
        self._pace = WarningPace()
        self._waiting: dict[str, deque[_Fact]] = {}
        self._draining: set[asyncio.Task[None]] = set()
        self._is_closing = False

    def report(self, op: protocol.WorkerOp) -> None:
        """A worker says something of a recording."""
        recording_id = getattr(op, "recording_id", None)
        if isinstance(recording_id, str):
            self._put(recording_id, op)
        elif isinstance(op, protocol.Warning):
            log.warning("worker_warning", reason=op.reason, message=op.message)

    async def known(self, recording_ids: Collection[str]) -> SpoolRecords:
        """What recovery must know of these recordings. Raises what the database raises."""
        return spool_records(
            await self._database.read(lambda connection: spooled.known_files(connection, recording_ids))
        )

    def recovered(self, loss: WorkerLoss) -> None:
        """A worker was lost, and its spool was looked at."""
        for segment in loss.recovery.segments:
            self._put(segment.recording_id, _Found(segment, event_pb2.INTERRUPTION_CAUSE_WORKER_LOST))
        for recording_id in loss.recordings:
            self._put(recording_id, _Searched(recording_id, loss.folder))

    async def store_recovered(self, recovery: Recovery) -> None:
        """The node was lost, and its spools were looked at; returns when all of that is stored.

        What can't be stored keeps nobody from starting: it is on the spool at the next start.
        """
        for segment in recovery.segments:
            self._put(segment.recording_id, _Found(segment, event_pb2.INTERRUPTION_CAUSE_NODE_LOST))
        await self._settle()
        for recording_id in await self._database.read(spooled.unsettled_recordings):
            self._put(recording_id, _Searched(recording_id, None, recovery.living))
        await self._settle()

    async def mend(self, row: SegmentRow) -> bool:
        """Upload found a complete file to be another than was recorded, or gone: keeps what is whole of it.

        Returns whether its row is another now: shorter, or LOST. Raises OSError, and what the database raises.
        """
        if row.joined or row.spool_path is None:
            return False
        path = Path(row.spool_path)
        found = await asyncio.to_thread(mend_segment, path)
        for each, fault in found.aside:
            await asyncio.to_thread(
                set_aside,
                self._spool_root,
                each,
                fault,
                recording_id=row.recording_id,
                segment=row.segment_id,
            )
        if found.segment is not None:
            await self._store(_Found(found.segment, event_pb2.INTERRUPTION_CAUSE_NODE_LOST))
        await self._store(_Searched(row.recording_id, path.parent))
        after = await self._database.read(
            lambda connection: segment_rows.find_segment(connection, row.app_id, row.file_id)
        )
        return after is None or (after.state, after.sha256) != (row.state, row.sha256)

    async def drain(self) -> None:
        """Waits until all facts that were reported are stored, or can't be: what comes later is not waited for."""
        self._is_closing = True
        await self._settle()

    async def _settle(self) -> None:
        while self._draining:
            await asyncio.wait(self._draining)

    def _put(self, recording_id: str, fact: _Fact) -> None:
        queue = self._waiting.get(recording_id)
        if queue is not None:
            queue.append(fact)
            return
        self._waiting[recording_id] = deque([fact])
        task = asyncio.create_task(self._work_off(recording_id))
        self._draining.add(task)
        task.add_done_callback(self._draining.discard)

    async def _work_off(self, recording_id: str) -> None:
        queue = self._waiting[recording_id]
        while queue:
            await self._store_surely(queue[0])
            queue.popleft()
        del self._waiting[recording_id]

    async def _store_surely(self, fact: _Fact) -> None:
        attempt = 0
        while attempt < _RETRIES:
            try:
                return await self._store(fact)
            except _UNAVAILABLE as error:
                log.warning("fact_waits", fact=type(fact).__name__, error=str(error))
                attempt += self._is_closing
                await asyncio.sleep(_RETRY_SECONDS if self._is_closing else self._waiting_seconds)
            except Exception:
                log.exception("fact_not_stored", fact=type(fact).__name__, attempt=attempt)
                attempt += 1
                await asyncio.sleep(_RETRY_SECONDS * attempt)

    async def _store(self, fact: _Fact) -> None:
        match fact:
            case protocol.SegmentStarted():
                await self._write("started", lambda uow: self._segments.started(uow, fact))
            case protocol.SegmentCompleted():
                await self._write("completed", lambda uow: self._completed(uow, fact))
                self._on_spooled()
            case protocol.SegmentGrown() if self._on_grown is not None:
                sizes: dict[int, int] = {
                    CONTAINER_NUMBERS[protocol.Container(name)]: size for name, size in fact.sizes.items()
                }
                await self._on_grown(fact.recording_id, fact.segment, sizes)
            case protocol.RecordingStopped():
                await self._write("stopped", lambda uow: end_recording(uow, fact.recording_id))
            case protocol.Gap():
                await self._write("gap", lambda uow: self._gap(uow, fact))
            case protocol.Warning() | protocol.RecordingFailed():
                await self._store_warning(fact)
            case _Found():
                await self._store_found(fact)
            case _Searched(recording_id, folder, living):
                await self._write(
                    "searched", lambda uow: self._found.settle(uow, recording_id, folder, living)
                )
            case _:
                log.error("unexpected_fact", fact=type(fact).__name__)

    async def _write(self, name: str, work: Callable[[UnitOfWork], Awaitable[None]]) -> None:
        await self._database.write(work, name=f"tasks.facts.Facts.{name}")

    async def _completed(self, uow: UnitOfWork, fact: protocol.SegmentCompleted) -> None:
        # A start that could not be stored must not cost the segment.
        await self._segments.started(uow, _start_of(fact))
        is_new = await self._segments.completed(uow, fact)
        if is_new and fact.interrupted:
            is_full = fact.trouble is protocol.SpoolTrouble.FULL
            cause = _SPOOL_FULL if is_full else event_pb2.INTERRUPTION_CAUSE_SPOOL_UNWRITABLE
            await self._interrupted(uow, fact.recording_id, fact.segment, cause)

    async def _store_found(self, fact: _Found) -> None:
        segment, fault = fact.segment, ""
        paced = PacedWarning(self._pace)

        async def work(uow: UnitOfWork) -> None:
            nonlocal fault
            fault, is_news = await self._found.segment(uow, segment, fact.cause)
            if is_news and fact.cause == event_pb2.INTERRUPTION_CAUSE_WORKER_LOST:
                lost = protocol.Warning(segment.recording_id, _WORKER_LOST, _WORKER_LOST_MESSAGE)
                await self._warning(uow, lost, paced)

        try:
            await self._write("recovered", work)
        except BaseException:
            paced.failed()
            raise
        if fault:
            for path in segment.paths:
                await asyncio.to_thread(set_aside, self._spool_root, path, fault)
        else:
            self._on_spooled()

    async def _interrupted(
        self,
        uow: UnitOfWork,
        recording_id: str,
        segment: int,
        cause: event_pb2.InterruptionCause.ValueType,
    ) -> None:
        task = await self._task(uow, recording_id)
        if task is not None:
            await tell_interruption(uow, task, recording_id, segment, cause)

    async def _gap(self, uow: UnitOfWork, fact: protocol.Gap) -> None:
        task = await self._task(uow, fact.recording_id)
        if task is not None:
            reason = _GAP_REASONS[fact.reason]
            gap = GapRow(task.task_id, fact.recording_id, fact.user_id, fact.from_ns, fact.to_ns, reason)
            await tell_gap(uow, task, gap)

    async def _store_warning(self, fact: protocol.Warning | protocol.RecordingFailed) -> None:
        paced = PacedWarning(self._pace)
        try:
            await self._write("warning", lambda uow: self._warning(uow, fact, paced))
        except BaseException:
            paced.failed()
            raise

    async def _warning(
        self, uow: UnitOfWork, fact: protocol.Warning | protocol.RecordingFailed, paced: PacedWarning
    ) -> None:
        task = await self._task(uow, fact.recording_id or "")
        if task is None:
            return
        reason = error_pb2.ErrorReason.Value(f"ERROR_REASON_{fact.reason}")
        if count := paced.count(task.task_id, reason, uow.now_ns):
            event = warning_event(task, reason, fact.message, recording_id=fact.recording_id or "")
            event.warning.count = count
            await uow.append(event)

    async def _task(self, uow: UnitOfWork, recording_id: str) -> task_pb2.Task | None:
        recording = await recording_rows.find_recording(uow.connection, recording_id)
        if recording is None:
            return None
        row = await task_rows.find_task(uow.connection, recording.app_id, recording.task_id)
        return task_proto(row) if row else None


def _start_of(fact: protocol.SegmentCompleted) -> protocol.SegmentStarted:
    return protocol.SegmentStarted(
        recording_id=fact.recording_id,
        segment=fact.segment,
        start_ns=fact.start_ns,
        files=tuple(
            protocol.StartedFile(file.container, file.path, file.sample_rate, file.channels)
            for file in fact.files
        ),
        sample_rate=fact.sample_rate,
        channels=fact.channels,
    )
