"""Segments begin and end: rows, names and events."""

import json
from typing import Protocol

from roomtape.v1 import event_pb2, media_pb2, segment_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.database import applications as application_rows
from roomtape_service.database import recordings as recording_rows
from roomtape_service.database import segments as segment_rows
from roomtape_service.database import tasks as task_rows
from roomtape_service.database.recordings import RecordingRow
from roomtape_service.database.segments import CompletedSegment, StartedSegment
from roomtape_service.database.tasks import TaskRow
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.events.build import segment_event
from roomtape_service.ids import Ids
from roomtape_service.recording import protocol
from roomtape_service.rules.naming import mixed_key, single_key
from roomtape_service.tasks.files import CONTAINER_CODECS, CONTAINERS

__all__ = ["SegmentFacts", "StorePlace", "completed_segment"]

_NUMBERS = {container: number for number, container in CONTAINERS.items()}


class StorePlace(Protocol):
    """Knows where an application's files go."""

    def place(self, record: application_rows.ApplicationRecord) -> tuple[str, str]:
        """Identity of the application's store, and the prefix of its object keys."""
        ...


class SegmentFacts:
    """Turns a worker's segments into one row and one line of events for each file."""

    def __init__(self, places: StorePlace, ids: Ids) -> None:
        self._places = places
        self._ids = ids

    async def started(self, uow: UnitOfWork, fact: protocol.SegmentStarted) -> None:
        """Files were begun. Nothing for those that are known."""
        recording = await recording_rows.find_recording(uow.connection, fact.recording_id)
        if recording is None:
            return
        task = await task_rows.find_task(uow.connection, recording.app_id, recording.task_id)
        assert task is not None
        known = await segment_rows.segments_of_recording(uow.connection, fact.recording_id, fact.segment)
        containers = {row.container for row in known}
        place: tuple[str, str] | None = None
        for file in fact.files:
            container = _NUMBERS[file.container]
            if container in containers:
                continue
            if place is None:
                application = await application_rows.get(uow.connection, task.app_id)
                place = self._places.place(application)
            started = self._row(task, recording, fact, file, container, place)
            await segment_rows.insert_segment(uow.connection, started)
            await self._append(uow, event_pb2.EVENT_TYPE_SEGMENT_STARTED, task.app_id, started.file_id)

    async def completed(self, uow: UnitOfWork, fact: protocol.SegmentCompleted) -> bool:
        """Files are complete on the spool. Returns whether that was news."""
        is_new = False
        rows = await segment_rows.segments_of_recording(uow.connection, fact.recording_id, fact.segment)
        by_container = {row.container: row for row in rows}
        for file in fact.files:
            row = by_container.get(_NUMBERS[file.container])
            if row is None or row.state != segment_pb2.SEGMENT_STATE_RECORDING:
                continue
            await segment_rows.complete_segment(uow.connection, row.file_id, completed_segment(fact, file))
            await self._append(uow, event_pb2.EVENT_TYPE_SEGMENT_COMPLETED, row.app_id, row.file_id)
            is_new = True
        return is_new

    def _row(
        self,
        task: TaskRow,
        recording: RecordingRow,
        fact: protocol.SegmentStarted,
        file: protocol.StartedFile,
        container: media_pb2.Container.ValueType,
        place: tuple[str, str],
    ) -> StartedSegment:
        store, prefix = place
        if recording.kind == segment_pb2.RECORDING_KIND_MIXED:
            key = mixed_key(
                prefix, task.app_id, task.room_id, task.task_id, task.start_ns, fact.segment, container
            )
        else:
            key = single_key(
                prefix, task.app_id, task.room_id, recording.user_id, task.start_ns, fact.segment, container
            )
        return StartedSegment(
            file_id=self._ids.token(),
            recording_id=recording.recording_id,
            task_id=task.task_id,
            app_id=task.app_id,
            room_id=task.room_id,
            kind=recording.kind,
            user_id=recording.user_id,
            segment_id=fact.segment,
            container=container,
            codec=CONTAINER_CODECS[file.container],
            spool_path=file.path,
            store=store,
            object_key=key,
            start_ns=fact.start_ns,
            sample_rate=file.sample_rate or fact.sample_rate,
            channels=file.channels or fact.channels,
        )

    async def _append(
        self, uow: UnitOfWork, event_type: event_pb2.EventType.ValueType, app_id: str, file_id: str
    ) -> None:
        row = await segment_rows.find_segment(uow.connection, app_id, file_id)
        assert row is not None
        await uow.append(segment_event(event_type, app_id, segment_rows.segment_message(row)))


def completed_segment(fact: protocol.SegmentCompleted, file: protocol.CompletedFile) -> CompletedSegment:
    """What the row of a segment's file says of it when it is complete."""
    counts = fact.statistics
    statistics = segment_pb2.FrameStatistics(
        recorded=counts.recorded,
        lost=counts.lost,
        duplicated=counts.duplicated,
        reordered=counts.reordered,
        rejected=counts.rejected,
    )
    resume = {key: [each.sequence, each.offset_ns] for key, each in fact.resume.items()}
    rate = file.sample_rate or fact.sample_rate
    return CompletedSegment(
        start_ns=fact.start_ns,
        end_ns=fact.end_ns if file.end_ns is None else file.end_ns,
        duration_ns=file.sample_count * NANOSECONDS // rate,
        sample_rate=rate,
        channels=file.channels or fact.channels,
        sample_count=file.sample_count,
        encoder_delay=file.encoder_delay,
        size_bytes=file.size,
        sha256=file.sha256,
        interrupted=fact.interrupted or file.end_ns is not None,
        statistics=statistics.SerializeToString(),
        resume=json.dumps(resume),
    )
