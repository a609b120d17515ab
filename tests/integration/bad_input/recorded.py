"""What became of one user in a task."""

from collections.abc import Sequence

from roomtape.client import Client
from roomtape.v1 import segment_pb2, task_pb2
from tests.support.waiting import eventually

__all__ = ["files_of", "until_files"]


async def files_of(
    client: Client, task_id: str, user_id: str, *, app_id: str = "app"
) -> Sequence[segment_pb2.Segment]:
    """The user's segments."""
    described = await client.recording.DescribeRecordInfo(
        task_pb2.DescribeRecordInfoRequest(app_id=app_id, task_id=task_id)
    )
    return [segment for segment in described.segments if segment.user_id == user_id]


async def until_files(
    client: Client,
    task_id: str,
    user_id: str,
    state: segment_pb2.SegmentState.ValueType,
    *,
    count: int = 1,
    app_id: str = "app",
) -> Sequence[segment_pb2.Segment]:
    """Waits until the user has `count` segments, all in the state."""
    found: Sequence[segment_pb2.Segment] = ()

    async def are_there() -> bool:
        nonlocal found
        found = await files_of(client, task_id, user_id, app_id=app_id)
        return len(found) >= count and all(segment.state == state for segment in found)

    name = segment_pb2.SegmentState.Name(state)
    await eventually(are_there, f"{user_id} has {count} segments that are {name}")
    assert len(found) == count, found
    return found
