"""Lists of the contract's messages as tables."""

from collections.abc import Iterable

from rich.table import Table

from roomtape.v1 import application_pb2, media_pb2, room_pb2, segment_pb2, storage_pb2, task_pb2
from roomtape_service.cli.enums import label
from roomtape_service.cli.output import new_table
from roomtape_service.cli.texts import segment_numbers, show_size, show_span, show_time

__all__ = ["application_table", "file_table", "room_table", "segment_table", "store_text", "task_table"]


def task_table(tasks: Iterable[task_pb2.Task]) -> Table:
    """One row a task."""
    table = new_table("task", "room", "mode", "whom", "state", "stopped by", "started", "stopped", "labels")
    for task in tasks:
        table.add_row(
            task.task_id,
            task.room_id,
            label(task_pb2.RecordMode.DESCRIPTOR, task.mode),
            _whom(task.subscription.audio),
            label(task_pb2.TaskState.DESCRIPTOR, task.state),
            label(task_pb2.StopReason.DESCRIPTOR, task.stop_reason),
            show_time(task.start_time),
            show_time(task.stop_time),
            " ".join(f"{key}={value}" for key, value in sorted(task.labels.items())),
        )
    return table


def segment_table(segments: Iterable[segment_pb2.Segment]) -> Table:
    """One row a segment, for one task."""
    table = new_table("of", "#", "file", "state", "start", "duration", "size", "object key", right=_NUMBERS)
    for segment in segments:
        table.add_row(
            segment.user_id or "the mix",
            str(segment.segment_id),
            label(media_pb2.Container.DESCRIPTOR, segment.container),
            _state(segment),
            show_time(segment.start_time),
            _duration(segment),
            show_size(segment.size_bytes) if segment.size_bytes else "",
            segment.object_key,
        )
    return table


def file_table(files: Iterable[segment_pb2.Segment]) -> Table:
    """One row a file, for many tasks."""
    columns = ("file id", "room", "of", "#", "start", "duration", "size", "where")
    table = new_table(*columns, right=_NUMBERS)
    for file in files:
        table.add_row(
            file.file_id,
            file.room_id,
            file.user_id or "the mix",
            segment_numbers(file),
            show_time(file.start_time),
            _duration(file),
            show_size(file.size_bytes),
            file.url or _state(file),
        )
    return table


def room_table(rooms: Iterable[room_pb2.Room]) -> Table:
    """One row a room."""
    table = new_table("room", "clock", "opened")
    for room in rooms:
        table.add_row(
            room.room_id, label(room_pb2.RoomClock.DESCRIPTOR, room.clock), show_time(room.create_time)
        )
    return table


def application_table(applications: Iterable[application_pb2.Application]) -> Table:
    """One row an application."""
    table = new_table("application", "name", "recording", "profile", "store", "changed", "etag")
    for application in applications:
        table.add_row(
            application.app_id,
            application.display_name,
            label(application_pb2.ServiceState.DESCRIPTOR, application.service_state),
            label(application_pb2.Profile.DESCRIPTOR, application.profile),
            store_text(application.storage),
            show_time(application.update_time),
            application.etag,
        )
    return table


def store_text(storage: storage_pb2.StorageSettings | storage_pb2.SecondaryStore) -> str:
    """Where files go, such as `cos bucket-125 (ap-guangzhou)/prefix`, and where else."""
    prefix = f"/{storage.prefix}" if storage.prefix else ""
    match storage.WhichOneof("store"):
        case "object_store":
            store = storage.object_store
            vendor = label(storage_pb2.StorageVendor.DESCRIPTOR, store.vendor)
            text = f"{vendor} {store.bucket} ({store.region}){prefix}"
        case "custom":
            text = f"{storage.custom.kind}{prefix}"
        case _:
            text = f"disk {storage.disk.folder or 'folder of the application'}{prefix}"
    if isinstance(storage, storage_pb2.StorageSettings) and storage.HasField("secondary"):
        text += f", else {store_text(storage.secondary)}"
    return text


_NUMBERS = ("#", "duration", "size")


def _whom(users: task_pb2.UserFilter) -> str:
    if users.allow_user_ids:
        return "only " + ", ".join(users.allow_user_ids)
    if users.block_user_ids:
        return "all but " + ", ".join(users.block_user_ids)
    return "everyone"


def _state(segment: segment_pb2.Segment) -> str:
    state = label(segment_pb2.SegmentState.DESCRIPTOR, segment.state)
    return f"{state}, interrupted" if segment.interrupted else state


def _duration(segment: segment_pb2.Segment) -> str:
    return show_span(segment.duration.ToNanoseconds()) if segment.HasField("duration") else ""
