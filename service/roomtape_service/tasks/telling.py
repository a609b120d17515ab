"""What is missing and what was interrupted, kept for the manifest and told in the same unit, once."""

from roomtape.v1 import event_pb2, task_pb2
from roomtape_service.database import manifests
from roomtape_service.database.gaps import GapRow, InterruptionRow, add_gap, add_interruption
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.events.build import gap_event, interrupted_event

__all__ = ["tell_gap", "tell_interruption"]


async def tell_gap(uow: UnitOfWork, task: task_pb2.Task, gap: GapRow) -> None:
    """Keeps a gap of the task, and appends GAP. Nothing if that very gap was told, or is none."""
    if gap.end_ns <= gap.start_ns or not await add_gap(uow, gap):
        return
    reason = event_pb2.GapReason.ValueType(gap.reason)
    await uow.append(gap_event(task, gap.recording_id, gap.user_id, gap.start_ns, gap.end_ns, reason))
    await manifests.changed(uow, task.app_id, task.task_id)


async def tell_interruption(
    uow: UnitOfWork,
    task: task_pb2.Task,
    recording_id: str,
    segment_id: int,
    cause: event_pb2.InterruptionCause.ValueType,
) -> None:
    """Keeps that a segment was interrupted, and appends INTERRUPTED. Nothing if that was told."""
    row = InterruptionRow(task.task_id, recording_id, segment_id, cause, uow.now_ns)
    if not await add_interruption(uow, row):
        return
    await uow.append(interrupted_event(task, recording_id, segment_id, cause))
    await manifests.changed(uow, task.app_id, task.task_id)
