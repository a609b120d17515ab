"""What workers report of recordings, made state and events."""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

from roomtape.v1 import error_pb2, event_pb2, task_pb2
from roomtape_service.database import recordings as recording_rows
from roomtape_service.database import tasks as task_rows
from roomtape_service.database.database import Database
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.events.build import gap_event, interrupted_event, warning_event
from roomtape_service.recording import protocol
from roomtape_service.spool.recovery import RecoveredSegment
from roomtape_service.tasks.completion import end_recording
from roomtape_service.tasks.segments import SegmentFacts
from roomtape_service.tasks.task import task_proto

__all__ = ["Facts"]

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
}

_UNAVAILABLE = (OperationalError, InterfaceError, sqlite3.OperationalError, OSError)
"""What a database raises that takes nothing from anybody."""

Fact = protocol.WorkerOp | tuple[RecoveredSegment, event_pb2.InterruptionCause.ValueType]


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
        *,
        waiting_seconds: float = _WAITING_SECONDS,
    ) -> None:
        """`waiting_seconds`: how often a fact is tried again that waits."""
        self._waiting_seconds = waiting_seconds
        self._database = database
        self._segments = segments
        self._on_spooled = on_spooled
        self._waiting: dict[str, deque[Fact]] = {}
        self._draining: set[asyncio.Task[None]] = set()
        self._is_closing = False

    def report(self, op: protocol.WorkerOp) -> None:
        """A worker says something of a recording."""
        recording_id = getattr(op, "recording_id", None)
        if isinstance(recording_id, str):
            self._put(recording_id, op)
        elif isinstance(op, protocol.Warning):
            log.warning("worker_warning", reason=op.reason, message=op.message)

    def recovered(self, segments: Iterable[RecoveredSegment]) -> None:
        """A worker was lost, and these segments are on its spool."""
        for segment in segments:
            self._put(segment.recording_id, (segment, event_pb2.INTERRUPTION_CAUSE_WORKER_LOST))

    async def store_recovered(self, segments: Iterable[RecoveredSegment]) -> None:
        """The node was lost, and these segments are on its spools; returns when all of them are stored."""
        for segment in segments:
            await self._store((segment, event_pb2.INTERRUPTION_CAUSE_NODE_LOST))

    async def drain(self) -> None:
        """Waits until all facts that were reported are stored, or can't be: what comes later is not waited for."""
        self._is_closing = True
        while self._draining:
            await asyncio.wait(self._draining)

    def _put(self, recording_id: str, fact: Fact) -> None:
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

    async def _store_surely(self, fact: Fact) -> None:
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

    async def _store(self, fact: Fact) -> None:
        match fact:
            case protocol.SegmentStarted():
                await self._write("started", lambda uow: self._segments.started(uow, fact))
            case protocol.SegmentCompleted():
                await self._write("completed", lambda uow: self._completed(uow, fact))
                self._on_spooled()
            case protocol.RecordingStopped():
                await self._write("stopped", lambda uow: end_recording(uow, fact.recording_id))
            case protocol.Gap():
                await self._write("gap", lambda uow: self._gap(uow, fact))
            case protocol.Warning() | protocol.RecordingFailed():
                await self._write("warning", lambda uow: self._warning(uow, fact))
            case (RecoveredSegment() as segment, cause):
                await self._write("recovered", lambda uow: self._recovered(uow, segment, cause))
                self._on_spooled()
            case _:
                log.error("unexpected_fact", fact=type(fact).__name__)

    async def _write(self, name: str, work: Callable[[UnitOfWork], Awaitable[None]]) -> None:
        await self._database.write(work, name=f"tasks.facts.Facts.{name}")

    async def _completed(self, uow: UnitOfWork, fact: protocol.SegmentCompleted) -> None:
        # A start that could not be stored must not cost the segment.
        await self._segments.started(uow, _start_of(fact))
        is_new = await self._segments.completed(uow, fact)
        if is_new and fact.interrupted:
            cause = event_pb2.INTERRUPTION_CAUSE_SPOOL_UNWRITABLE
            await self._interrupted(uow, fact.recording_id, fact.segment, cause)

    async def _recovered(
        self, uow: UnitOfWork, segment: RecoveredSegment, cause: event_pb2.InterruptionCause.ValueType
    ) -> None:
        if await recording_rows.find_recording(uow.connection, segment.recording_id) is None:
            log.error("foreign_segment", recording_id=segment.recording_id, segment=segment.segment)
            return
        await self._segments.started(uow, segment.started())
        is_new = await self._segments.completed(uow, segment.completed())
        if is_new and segment.interrupted:
            await self._interrupted(uow, segment.recording_id, segment.segment, cause)
            if cause == event_pb2.INTERRUPTION_CAUSE_WORKER_LOST:
                await self._warning(
                    uow, protocol.Warning(segment.recording_id, _WORKER_LOST, _WORKER_LOST_MESSAGE)
                )

    async def _interrupted(
        self,
        uow: UnitOfWork,
        recording_id: str,
        segment: int,
        cause: event_pb2.InterruptionCause.ValueType,
    ) -> None:
        task = await self._task(uow, recording_id)
        if task is not None:
            await uow.append(interrupted_event(task, recording_id, segment, cause))

    async def _gap(self, uow: UnitOfWork, fact: protocol.Gap) -> None:
        task = await self._task(uow, fact.recording_id)
        if task is not None:
            reason = _GAP_REASONS[fact.reason]
            gap = gap_event(task, fact.recording_id, fact.user_id, fact.from_ns, fact.to_ns, reason)
            await uow.append(gap)

    async def _warning(self, uow: UnitOfWork, fact: protocol.Warning | protocol.RecordingFailed) -> None:
        task = await self._task(uow, fact.recording_id or "")
        if task is not None:
            reason = error_pb2.ErrorReason.Value(f"ERROR_REASON_{fact.reason}")
            await uow.append(warning_event(task, reason, fact.message, recording_id=fact.recording_id or ""))

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
        files=tuple(protocol.StartedFile(file.container, file.path) for file in fact.files),
        sample_rate=fact.sample_rate,
        channels=fact.channels,
    )
