"""What goes on in an application, at one glance: kept by a snapshot and events alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp
from rich.table import Table
from rich.text import Text

from roomtape.client import Snapshot
from roomtape.v1 import event_pb2, segment_pb2, task_pb2
from roomtape_service.cli.enums import label
from roomtape_service.cli.event_text import is_bad_news
from roomtape_service.cli.output import new_table
from roomtape_service.cli.texts import show_size, show_span

__all__ = ["Board"]

_ENDED = frozenset({task_pb2.TASK_STATE_COMPLETED, task_pb2.TASK_STATE_FAILED})
_GONE = frozenset({segment_pb2.SEGMENT_STATE_LOST, segment_pb2.SEGMENT_STATE_ABANDONED})
_STYLES = {
    task_pb2.TASK_STATE_RECORDING: "green",
    task_pb2.TASK_STATE_IDLE: "yellow",
    task_pb2.TASK_STATE_FAILED: "red",
    task_pb2.TASK_STATE_COMPLETED: "dim",
}
# Tasks that have ended stay in view for a while.
_ENDED_SHOWN = 3


@dataclass(slots=True)
class _Room:
    participants: int = 0
    tracks: int = 0
    muted: int = 0


@dataclass(slots=True)
class _Task:
    room_id: str
    state: task_pb2.TaskState.ValueType = task_pb2.TASK_STATE_UNSPECIFIED
    start_ns: int = 0
    running: set[str] = field(default_factory=set)
    """Recordings that have not ended."""
    waiting: dict[str, segment_pb2.Segment] = field(default_factory=dict)
    """Segments that are in no store yet."""
    sent: dict[str, int] = field(default_factory=dict)
    """Of large ones among them, the bytes that the store has."""
    stored: int = 0
    trouble: int = 0


class Board:
    """The tasks of an application and the rooms that they are of."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}
        self._tasks: dict[str, _Task] = {}
        self._events = 0
        self._newest = 0

    def begin(self, snapshot: Snapshot) -> None:
        """What there was."""
        self._newest = snapshot.sequence
        for room in snapshot.rooms:
            self._rooms[room.room_id] = _Room()
        for each in snapshot.participants:
            room_view = self._rooms.setdefault(each.room_id, _Room())
            room_view.participants += 1
            room_view.tracks += len(each.participant.tracks)
            room_view.muted += sum(track.muted for track in each.participant.tracks)
        for task in snapshot.tasks:
            self._task_changed(task)
        for recording in snapshot.recordings:
            self._recording_changed(recording)
        for segment in snapshot.segments:
            self._segment_changed(segment, 0)

    def take(self, event: event_pb2.Event) -> None:
        """Something happened."""
        self._events += 1
        self._newest = event.sequence
        match event.WhichOneof("detail"):
            case "room":
                self._rooms.pop(event.room_id, None)
                if event.type == event_pb2.EVENT_TYPE_ROOM_CREATED:
                    self._rooms[event.room_id] = _Room()
            case "participant":
                detail = event.participant
                self._rooms[event.room_id] = _Room(
                    detail.participant_count, detail.track_count, detail.muted_track_count
                )
            case "task":
                self._task_changed(event.task.task)
            case "recording":
                self._recording_changed(event.recording.recording)
            case "segment" if event.task_id:
                self._segment_changed(event.segment.segment, event.segment.sent_bytes)
            case _:
                pass
        if is_bad_news(event) and event.task_id in self._tasks:
            self._tasks[event.task_id].trouble += 1

    def render(self, now_ns: int, rows: int) -> Table:
        """At most `rows` lines; UTC nanoseconds."""
        table = new_table(
            "task", "room", "state", "for", "users", "recordings", "segments", "trouble", right=("for",)
        )
        shown = self._in_view()
        room = max(1, rows - 2)
        for task_id in shown[:room]:
            table.add_row(*self._row(task_id, now_ns))
        more = len(shown) - room
        tasks = "no tasks" if not shown else f"and {_count(more, 'more task')}" if more > 0 else ""
        users = sum(each.participants for each in self._rooms.values())
        parts = [tasks, _count(len(self._rooms), "room"), _count(users, "user")]
        parts += [f"{_count(self._events, 'event')}, the newest {self._newest}"]
        table.caption = Text(", ".join(part for part in parts if part), style="dim")
        table.caption_justify = "left"
        return table

    def _in_view(self) -> Sequence[str]:
        """Those with trouble first, then the newest; those that have ended last."""
        ended = [task_id for task_id, task in self._tasks.items() if task.state in _ENDED]
        for task_id in ended[:-_ENDED_SHOWN]:
            del self._tasks[task_id]

        def key(task_id: str) -> tuple[bool, bool, int]:
            task = self._tasks[task_id]
            return (task.state in _ENDED, not task.trouble, -task.start_ns)

        return sorted(self._tasks, key=key)

    def _row(self, task_id: str, now_ns: int) -> Sequence[str | Text]:
        task = self._tasks[task_id]
        room = self._rooms.get(task.room_id)
        users = "" if room is None else f"{room.participants}"
        if room is not None and room.muted:
            users += f", {room.muted} of {room.tracks} muted"
        state = Text(label(task_pb2.TaskState.DESCRIPTOR, task.state), style=_STYLES.get(task.state, ""))
        since = show_span(max(0, now_ns - task.start_ns)).partition(".")[0] if task.start_ns else ""
        trouble = Text(str(task.trouble), style="yellow") if task.trouble else ""
        return (task_id, task.room_id, state, since, users, str(len(task.running)), _segments(task), trouble)

    def _task(self, task_id: str, room_id: str) -> _Task:
        return self._tasks.setdefault(task_id, _Task(room_id))

    def _task_changed(self, message: task_pb2.Task) -> None:
        task = self._task(message.task_id, message.room_id)
        task.state = message.state
        task.start_ns = _ns(message.start_time)

    def _recording_changed(self, recording: segment_pb2.Recording) -> None:
        task = self._tasks.get(recording.task_id)
        if task is None:
            return
        task.running.discard(recording.recording_id)
        if not recording.HasField("end_time"):
            task.running.add(recording.recording_id)

    def _segment_changed(self, segment: segment_pb2.Segment, sent_bytes: int) -> None:
        task = self._task(segment.task_id, segment.room_id)
        if segment.state == segment_pb2.SEGMENT_STATE_UPLOADED or segment.state in _GONE:
            task.waiting.pop(segment.file_id, None)
            task.sent.pop(segment.file_id, None)
            task.stored += segment.state not in _GONE
            return
        task.waiting[segment.file_id] = segment
        if sent_bytes:
            task.sent[segment.file_id] = sent_bytes


def _segments(task: _Task) -> str:
    growing = sum(each.state == segment_pb2.SEGMENT_STATE_RECORDING for each in task.waiting.values())
    uploading = len(task.waiting) - growing
    parts = [f"{growing} growing" if growing else "", f"{task.stored} stored" if task.stored else ""]
    if uploading:
        total = sum(task.waiting[file_id].size_bytes for file_id in task.sent)
        progress = f" ({show_size(sum(task.sent.values()))} of {show_size(total)})" if total else ""
        parts.insert(1, f"{uploading} on their way{progress}")
    return ", ".join(part for part in parts if part)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _ns(time: Timestamp) -> int:
    return time.ToNanoseconds()
