"""A task that is not finished, as the node has it in memory."""

import json
from dataclasses import dataclass, field

from roomtape.v1 import task_pb2
from roomtape_service.database.tasks import TaskRow
from roomtape_service.rooms.room import timestamp
from roomtape_service.rules.profiles import Profile
from roomtape_service.rules.scope import RecordingKey

__all__ = ["LiveTask", "task_proto"]


def task_proto(row: TaskRow) -> task_pb2.Task:
    """The task of a row, as the contract has it."""
    return task_pb2.Task(
        task_id=row.task_id,
        app_id=row.app_id,
        room_id=row.room_id,
        client_task_id=row.client_task_id,
        mode=task_pb2.RecordMode.ValueType(row.mode),
        subscription=task_pb2.Subscription.FromString(row.subscription),
        output=task_pb2.OutputSettings.FromString(row.output),
        state=task_pb2.TaskState.ValueType(row.state),
        stop_reason=task_pb2.StopReason.ValueType(row.stop_reason),
        labels=row.label_map,
        start_time=timestamp(row.start_ns),
        stop_time=timestamp(row.stop_ns) if row.stop_ns is not None else None,
        complete_time=timestamp(row.complete_ns) if row.complete_ns is not None else None,
        task_sequence=row.last_task_sequence,
    )


@dataclass(slots=True, eq=False)
class LiveTask:
    """A task whose room is on this node.

    `recordings` are those that have begun. Changed only under the lock of the task's room, and only after the change is
    stored.
    """

    room_key: str
    proto: task_pb2.Task
    profile: Profile
    start_ns: int
    recordings: dict[RecordingKey, str] = field(default_factory=dict)
    idle_since_ns: int | None = None
    refused: set[str] = field(default_factory=set)
    """Tracks that none of the containers holds, of which watchers were told."""

    def row(self) -> TaskRow:
        """The task as it is first stored."""
        proto = self.proto
        return TaskRow(
            task_id=proto.task_id,
            app_id=proto.app_id,
            room_id=proto.room_id,
            room_key=self.room_key,
            client_task_id=proto.client_task_id,
            state=proto.state,
            mode=proto.mode,
            subscription=proto.subscription.SerializeToString(),
            output=proto.output.SerializeToString(),
            labels=json.dumps(dict(proto.labels)),
            stop_reason=proto.stop_reason,
            start_ns=self.start_ns,
            stop_ns=None,
            complete_ns=None,
            idle_since_ns=None,
            last_task_sequence=0,
        )

    def modified(self, wanted: task_pb2.Task) -> None:
        """Mode and subscription are those of `wanted` from now on."""
        self.proto.mode = wanted.mode
        self.proto.subscription.CopyFrom(wanted.subscription)

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self.proto.task_id

    def with_changes(
        self,
        *,
        mode: task_pb2.RecordMode.ValueType | None = None,
        subscription: task_pb2.Subscription | None = None,
    ) -> task_pb2.Task:
        """A copy of the proto with some fields changed."""
        proto = task_pb2.Task()
        proto.CopyFrom(self.proto)
        if mode is not None:
            proto.mode = mode
        if subscription is not None:
            proto.subscription.CopyFrom(subscription)
        return proto
