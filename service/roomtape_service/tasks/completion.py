"""The end of a task: when every segment of a stopped task is in the store, and its manifest with them."""

from roomtape.v1 import event_pb2, task_pb2
from roomtape_service.database import manifests
from roomtape_service.database import recordings as recording_rows
from roomtape_service.database import segments as segment_rows
from roomtape_service.database import tasks as task_rows
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.events.build import recording_event, task_event
from roomtape_service.tasks.task import task_proto
from roomtape_service.tasks.tasks import recording_proto

__all__ = ["complete_if_done", "end_recording"]


async def complete_if_done(uow: UnitOfWork, app_id: str, task_id: str, complete_ns: int) -> bool:
    """Completes a FINALIZING task whose recordings have ended and whose segments are all in a store, or never will be.

    Called in the unit that stores that its final manifest is written, which says `complete_ns`. Returns whether it
    completed the task.
    """
    task = await task_rows.find_task(uow.connection, app_id, task_id)
    if task is None or task.state != task_pb2.TASK_STATE_FINALIZING:
        return False
    recordings = await recording_rows.recordings_of_task(uow.connection, task_id)
    if any(recording.end_ns is None for recording in recordings):
        return False
    if await segment_rows.has_unstored_segments(uow.connection, task_id):
        return False
    await task_rows.complete_task(uow.connection, task_id, complete_ns)
    completed = await task_rows.find_task(uow.connection, app_id, task_id)
    assert completed is not None
    proto = task_proto(completed)
    state_changed = event_pb2.EVENT_TYPE_TASK_STATE_CHANGED
    await uow.append(task_event(state_changed, proto, task_pb2.TASK_STATE_FINALIZING))
    await uow.append(task_event(event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE, proto))
    return True


async def end_recording(uow: UnitOfWork, recording_id: str) -> None:
    """The last of a recording is written."""
    recording = await recording_rows.find_recording(uow.connection, recording_id)
    if recording is None or not await recording_rows.end_recording(uow.connection, recording_id, uow.now_ns):
        return
    ended = await recording_rows.find_recording(uow.connection, recording_id)
    task = await task_rows.find_task(uow.connection, recording.app_id, recording.task_id)
    assert ended is not None
    assert task is not None
    event_type = event_pb2.EVENT_TYPE_RECORDING_ENDED
    await uow.append(recording_event(event_type, task_proto(task), recording_proto(ended)))
    await manifests.changed(uow, recording.app_id, recording.task_id)
