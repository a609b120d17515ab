"""The state with which a watch begins."""

from collections.abc import Sequence
from dataclasses import dataclass

from roomtape.v1 import event_pb2, room_pb2, segment_pb2, task_pb2

__all__ = ["Snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What there was of an application, under the watch's filter, right before the first event that the watch gives."""

    items: Sequence[event_pb2.SnapshotItem]
    """As they came: each room before its participants, each task before its recordings, and these before segments."""

    sequence: int
    """The newest event that is in it; 0 before the first."""

    resume_token: str
    """A watch after this token gives every event that is not in it."""

    @property
    def rooms(self) -> Sequence[room_pb2.Room]:
        """The open rooms, without participants."""
        return [item.room for item in self.items if item.HasField("room")]

    @property
    def participants(self) -> Sequence[event_pb2.SnapshotParticipant]:
        """Who is in them."""
        return [item.participant for item in self.items if item.HasField("participant")]

    @property
    def tasks(self) -> Sequence[task_pb2.Task]:
        """The tasks that have not ended, and those that the filter names."""
        return [item.task for item in self.items if item.HasField("task")]

    @property
    def recordings(self) -> Sequence[segment_pb2.Recording]:
        """Their recordings."""
        return [item.recording for item in self.items if item.HasField("recording")]

    @property
    def segments(self) -> Sequence[segment_pb2.Segment]:
        """Those of their segments that are in no store yet."""
        return [item.segment for item in self.items if item.HasField("segment")]
