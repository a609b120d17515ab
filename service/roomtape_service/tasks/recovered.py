"""What recovery found on the spool, made state and events; what it did not find is lost, and told.

Each of these can be done again: what was stored and told is neither stored nor told once more.
"""

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from roomtape.v1 import error_pb2, event_pb2, media_pb2, segment_pb2, task_pb2
from roomtape_service.database import manifests, spooled
from roomtape_service.database import recordings as recording_rows
from roomtape_service.database import segments as segment_rows
from roomtape_service.database import tasks as task_rows
from roomtape_service.database.gaps import GapRow
from roomtape_service.database.recordings import RecordingRow
from roomtape_service.database.segments import SegmentRow
from roomtape_service.database.spooled import KnownFile
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.events.build import segment_event, warning_event
from roomtape_service.recording.protocol import CompletedFile
from roomtape_service.spool.aside import find_aside
from roomtape_service.spool.records import SpoolRecords
from roomtape_service.spool.recovery import RecoveredSegment
from roomtape_service.tasks.files import CONTAINERS
from roomtape_service.tasks.segments import SegmentFacts, completed_segment
from roomtape_service.tasks.task import task_proto
from roomtape_service.tasks.telling import tell_gap, tell_interruption

__all__ = ["RecoveredFacts", "lose", "spool_records"]

_COMPLETE = (segment_pb2.SEGMENT_STATE_SPOOLED, segment_pb2.SEGMENT_STATE_UPLOADING)
_NUMBERS = {container: number for number, container in CONTAINERS.items()}

_FOREIGN = "of a recording that this service does not know"
_COPY = "a second copy of a segment that is here already"
_GONE = "SpoolFileGone"
_DAMAGED = "SpoolFileDamaged"
"""Codes of SEGMENT_LOST."""


def spool_records(files: Sequence[KnownFile]) -> SpoolRecords:
    """What recovery must know of the files of some recordings."""
    return SpoolRecords(
        begun={(each.recording_id, each.segment_id) for each in files},
        settled={
            (each.recording_id, each.segment_id, CONTAINERS[_container(each.container)])
            for each in files
            if each.state >= segment_pb2.SEGMENT_STATE_UPLOADED
        },
        complete={
            Path(each.spool_path).name: (each.size_bytes, each.spool_path)
            for each in files
            if each.state in _COMPLETE and each.spool_path is not None
        },
    )


class RecoveredFacts:
    """Works within units of work of `Facts`."""

    def __init__(self, segments: SegmentFacts, spool_root: Path) -> None:
        self._segments = segments
        self._spool_root = spool_root

    async def segment(
        self, uow: UnitOfWork, segment: RecoveredSegment, cause: event_pb2.InterruptionCause.ValueType
    ) -> tuple[str, bool]:
        """Stores a segment that was found.

        Returns why it is none, or nothing, and whether its interruption is news.
        """
        recording = await recording_rows.find_recording(uow.connection, segment.recording_id)
        task = await _task(uow, recording)
        if recording is None or task is None:
            return _FOREIGN, False
        rows = await self._rows(uow, segment)
        if await _is_second(uow, rows, segment):
            return _COPY, False
        await self._segments.started(uow, segment.started())
        is_new = await self._segments.completed(uow, segment.completed())
        if is_new and segment.interrupted:
            await tell_interruption(uow, task, segment.recording_id, segment.segment, cause)
        files = {file.container: file for file in segment.completed().files}
        for row in (await self._rows(uow, segment)).values():
            container = CONTAINERS[_container(row.container)]
            file, fault = files.get(container), segment.faults.get(container)
            if file is not None:
                was_cut = (is_new and fault is not None) or await self._shorten(uow, segment, file, row)
                if was_cut:
                    end_ns = file.end_ns or segment.end_ns
                    text = fault or f"{Path(file.path).name} is damaged"
                    await _tell_damage(uow, task, row, text, end_ns, segment.known_end_ns)
            elif fault is not None:
                kept = find_aside(self._spool_root, Path(row.spool_path or ""))
                await lose(uow, task, row, fault, kept, segment.known_end_ns)
        return "", is_new and segment.interrupted

    async def settle(
        self, uow: UnitOfWork, recording_id: str, folder: Path | None, living: Collection[Path]
    ) -> None:
        """Of a recording what is not on the spool, all of which was looked at, is lost.

        `folder`: only what was in this one. What is in folders of `living` processes may still come.
        """
        recording = await recording_rows.find_recording(uow.connection, recording_id)
        task = await _task(uow, recording)
        if recording is None or task is None:
            return
        rows = await segment_rows.segments_of_recording(uow.connection, recording_id)
        for row in rows:
            if row.state >= segment_pb2.SEGMENT_STATE_UPLOADED or row.joined or row.spool_path is None:
                continue
            path = Path(row.spool_path)
            if path.parent in living or (folder is not None and path.parent != folder):
                continue
            is_begun = row.state == segment_pb2.SEGMENT_STATE_RECORDING
            if not is_begun and os.path.lexists(path):
                continue
            # What is RECORDING now, recovery could make nothing of.
            end_ns = row.end_ns or _next_start_ns(rows, row)
            kept = find_aside(self._spool_root, path)
            fault = f"{path.name} is {'not usable' if kept else 'gone'}"
            await lose(uow, task, row, fault, kept, end_ns if end_ns is not None else row.start_ns)

    async def _rows(self, uow: UnitOfWork, segment: RecoveredSegment) -> dict[int, SegmentRow]:
        rows = await segment_rows.segments_of_recording(uow.connection, segment.recording_id, segment.segment)
        return {row.container: row for row in rows if not row.joined}

    async def _shorten(
        self, uow: UnitOfWork, segment: RecoveredSegment, file: CompletedFile, row: SegmentRow
    ) -> bool:
        if row.sha256 == file.sha256:
            return False
        facts = completed_segment(segment.completed(), file)
        return await spooled.shorten_file(uow.connection, row.file_id, facts)


async def lose(
    uow: UnitOfWork, task: task_pb2.Task, row: SegmentRow, fault: str, kept: Path | None, end_ns: int
) -> bool:
    """Makes a file LOST that is in no store and can't be, and tells what is missing by that.

    Nothing if it is stored, or LOST already. Returns whether it was news.
    """
    if not await spooled.lose_file(uow.connection, row.file_id, end_ns):
        return False
    lost = await segment_rows.find_segment(uow.connection, row.app_id, row.file_id)
    assert lost is not None
    event = segment_event(event_pb2.EVENT_TYPE_SEGMENT_LOST, row.app_id, segment_rows.segment_message(lost))
    event.segment.error_code = _DAMAGED if kept is not None else _GONE
    event.segment.message = f"{fault}; {_kept(kept)}."
    await uow.append(event)
    await _tell_damage(uow, task, row, f"{fault}; {_kept(kept)}", row.start_ns, lost.end_ns or end_ns)
    await manifests.changed(uow, row.app_id, row.task_id)
    return True


async def _tell_damage(
    uow: UnitOfWork, task: task_pb2.Task, row: SegmentRow, fault: str, start_ns: int, end_ns: int
) -> None:
    message = f"A file on the server's disk was damaged before it was in a store: {fault}. Look at that disk."
    warning = warning_event(
        task, error_pb2.ERROR_REASON_SPOOL_FILE_DAMAGED, message, row.recording_id, row.user_id
    )
    await uow.append(warning)
    reason = event_pb2.GAP_REASON_SEGMENT_LOST
    await tell_gap(uow, task, GapRow(task.task_id, row.recording_id, row.user_id, start_ns, end_ns, reason))


async def _is_second(uow: UnitOfWork, rows: dict[int, SegmentRow], segment: RecoveredSegment) -> bool:
    """Whether the database has the segment elsewhere. A place that is no more was moved here."""
    for file in segment.completed().files:
        row = rows.get(_NUMBERS[file.container])
        if row is None or row.spool_path == file.path:
            continue
        if row.spool_path is None or os.path.lexists(row.spool_path):
            return True
        await spooled.move_file(uow.connection, row.file_id, file.path)
    return False


async def _task(uow: UnitOfWork, recording: RecordingRow | None) -> task_pb2.Task | None:
    if recording is None:
        return None
    row = await task_rows.find_task(uow.connection, recording.app_id, recording.task_id)
    return task_proto(row) if row else None


def _next_start_ns(rows: Sequence[SegmentRow], row: SegmentRow) -> int | None:
    later = [each.start_ns for each in rows if each.segment_id > row.segment_id and not each.joined]
    return min(later, default=None)


def _kept(kept: Path | None) -> str:
    return f"it is kept aside as {kept.name}" if kept is not None else "nothing of it is left"


def _container(number: int) -> media_pb2.Container.ValueType:
    return media_pb2.Container.ValueType(number)
