"""What the library's calls are refused with."""

from roomtape.v1 import error_pb2, segment_pb2
from roomtape_service.database.segments import SegmentRow
from roomtape_service.errors import Refusal

__all__ = ["file_not_found", "file_not_stored", "state_name"]


def file_not_found(app_id: str, file_id: str) -> Refusal:
    """FILE_NOT_FOUND."""
    return Refusal(
        error_pb2.ERROR_REASON_FILE_NOT_FOUND,
        f"The application {app_id!r} has no file {file_id!r}.",
        metadata={"appId": app_id, "fileId": file_id},
    )


def file_not_stored(row: SegmentRow, text: str = "") -> Refusal:
    """FILE_NOT_STORED; `text` says why, by default its state."""
    if not text:
        waiting = row.state < segment_pb2.SEGMENT_STATE_UPLOADED
        hint = "yet; wait for SEGMENT_UPLOADED" if waiting else "and in no store any more"
        text = f"is {state_name(row)} {hint}"
    return Refusal(
        error_pb2.ERROR_REASON_FILE_NOT_STORED,
        f"The file {row.file_id!r} {text}.",
        metadata={"appId": row.app_id, "fileId": row.file_id},
    )


def state_name(row: SegmentRow) -> str:
    """The state of a file as the contract has it, without its prefix."""
    name = segment_pb2.SegmentState.Name(segment_pb2.SegmentState.ValueType(row.state))
    return name.removeprefix("SEGMENT_STATE_")
