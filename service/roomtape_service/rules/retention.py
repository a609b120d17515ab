"""How long files are kept in their store."""

from google.protobuf import duration_pb2

from roomtape.v1 import storage_pb2, task_pb2

__all__ = ["MAX_RETENTION_DAYS", "expire_ns", "retention_problem"]

MAX_RETENTION_DAYS = 1500
"""As GME's StorageTime of its VOD storage: 0 to 1,500 days, 0 for ever."""

_DAY_SECONDS = 24 * 3600
_SECOND_NS = 1_000_000_000


def retention_problem(retention: duration_pb2.Duration) -> str | None:
    """What is wrong with a retention that a caller set; None for whole days from 0 to `MAX_RETENTION_DAYS`."""
    days, rest_seconds = divmod(retention.seconds, _DAY_SECONDS)
    if not rest_seconds and not retention.nanos and 0 <= days <= MAX_RETENTION_DAYS:
        return None
    # Not by the message's own conversions: they raise for what is no duration.
    shown = f"{retention.seconds + retention.nanos / _SECOND_NS:.9g}s"
    return f"{shown} is not a whole number of days up to {MAX_RETENTION_DAYS}; 0s keeps files for ever"


def expire_ns(
    end_ns: int,
    task_start_ns: int,
    output: task_pb2.OutputSettings,
    storage: storage_pb2.StorageSettings,
) -> int | None:
    """When the retention of a file ends whose media ends at `end_ns`, both UTC nanoseconds; None: never.

    What the task says, and where it says nothing, what its application says when the file is stored. Media that is
    older than its task, which a room on media's clock may have, counts from the start of the task: it would go while it
    is recorded.
    """
    retention = output.retention if output.HasField("retention") else storage.retention
    # Neither is set by default, which reads as 0.
    return max(end_ns, task_start_ns) + retention.seconds * _SECOND_NS if retention.seconds else None
