"""Where a watcher stands in an application's log; the same for asyncio and threads."""

from dataclasses import dataclass

from google.protobuf import duration_pb2

from roomtape.client.snapshot import Snapshot
from roomtape.v1 import event_pb2, task_pb2

__all__ = ["DEFAULT_BOOKMARK_SECONDS", "FINAL_STATES", "TELLING_EVENTS", "WatchCursor", "WatchStatistics"]

DEFAULT_BOOKMARK_SECONDS = 30.0

# Where a task can't go on from, and the events that tell of it.
FINAL_STATES = frozenset({task_pb2.TASK_STATE_COMPLETED, task_pb2.TASK_STATE_FAILED})
TELLING_EVENTS = (event_pb2.EVENT_TYPE_TASK_STATE_CHANGED, event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE)

# The bounds to which a server takes other intervals.
MIN_BOOKMARK_SECONDS = 1.0
MAX_BOOKMARK_SECONDS = 300.0

# A server that lives is heard every 1.1 intervals; the contract says to give up on it after two and a half.
SILENCE_INTERVALS = 2.5


@dataclass(frozen=True, slots=True)
class WatchStatistics:
    """What a watch has seen so far."""

    events: int
    """Events handed out."""

    duplicates: int
    """Events that came again after a resume and were dropped."""

    bookmarks: int
    """Bookmarks of any kind."""

    resumes: int
    """Streams that broke and were opened again."""


class WatchCursor:
    """Steps from message to message: what to ask for, what to hand out, from where to go on."""

    def __init__(
        self,
        app_id: str,
        *,
        after: str | None,
        origin: event_pb2.WatchOrigin.ValueType,
        filter: event_pb2.EventFilter | None,
        bookmark_seconds: float,
    ) -> None:
        self.resume_token = after
        self.duplicates = 0
        self.snapshot: Snapshot | None = None
        self.may_have_snapshot = after is not None or origin == event_pb2.WATCH_ORIGIN_SNAPSHOT
        """False as soon as it is known that none will come."""
        self._items: list[event_pb2.SnapshotItem] = []
        self._app_id = app_id
        self._origin: event_pb2.WatchOrigin.ValueType = origin
        self._filter = filter
        self._bookmark_seconds = min(max(bookmark_seconds, MIN_BOOKMARK_SECONDS), MAX_BOOKMARK_SECONDS)
        self._newest_sequence = 0
        self._events = 0
        self._bookmarks = 0
        self._streams = 0

    @property
    def silence_seconds(self) -> float:
        """After how long without a message a stream is dead."""
        return SILENCE_INTERVALS * self._bookmark_seconds

    def statistics(self) -> WatchStatistics:
        """The counts so far."""
        return WatchStatistics(self._events, self.duplicates, self._bookmarks, max(0, self._streams - 1))

    def request(self) -> event_pb2.WatchEventsRequest:
        """What the next stream has to ask for."""
        self._streams += 1
        request = event_pb2.WatchEventsRequest(app_id=self._app_id, filter=self._filter)
        request.bookmark_interval.CopyFrom(duration_pb2.Duration())
        request.bookmark_interval.FromNanoseconds(round(self._bookmark_seconds * 1e9))
        if self.resume_token is None:
            request.origin = self._origin
        else:
            request.resume_token = self.resume_token
        return request

    def accept(self, response: event_pb2.WatchEventsResponse) -> event_pb2.Event | None:
        """Moves on by one message; the event to hand out, if it is one that was not handed out yet."""
        self.resume_token = response.resume_token or self.resume_token
        match response.WhichOneof("item"):
            case "event":
                self.may_have_snapshot = False
                event = response.event
                if event.sequence <= self._newest_sequence:
                    self.duplicates += 1
                    return None
                self._newest_sequence = event.sequence
                self._events += 1
                return event
            case "snapshot":
                self._items.append(response.snapshot)
            case "bookmark":
                self._bookmarks += 1
                self._mark(response.bookmark, response.resume_token)
            case _:
                # A kind of message that is newer than this library carries a token, and that is all we need of it.
                pass
        return None

    def _mark(self, bookmark: event_pb2.Bookmark, resume_token: str) -> None:
        match bookmark.reason:
            case event_pb2.BOOKMARK_REASON_STARTED:
                # Half a snapshot that came before is of no use: another one comes, or none is needed any more.
                self._items = []
            case event_pb2.BOOKMARK_REASON_SNAPSHOT_END:
                self.snapshot = Snapshot(tuple(self._items), bookmark.sequence, resume_token)
                self._items = []
                self.may_have_snapshot = False
            case event_pb2.BOOKMARK_REASON_IDLE:
                self.may_have_snapshot = False
            case _:
                pass
