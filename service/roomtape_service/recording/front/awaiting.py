"""What recordings lack whose task was stopped before their node died: they end when it has come.

Publishers who come back send again what was not acknowledged, and then go on. A recording takes of each track what had
come before the stop and no more, as if the node had lived; a batch that goes on behind that is cut in two.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from roomtape.v1 import ingest_pb2

__all__ = ["Awaiting", "split_batch"]


class Stoppable(Protocol):
    """A room's feed, as far as recordings end in it."""

    def set_tracks(self, recording_id: str, keys: Iterable[str]) -> None:
        """Says which tracks the recording takes from now on."""
        ...

    def stop_recording(self, recording_id: str, at_ns: int) -> None:
        """Ends a recording."""
        ...


class Awaiting:
    """By recording the tracks that it awaits, each with the newest sequence that it takes."""

    def __init__(self, feed: Stoppable) -> None:
        self._feed = feed
        self._until: dict[str, dict[str, int]] = {}
        self._ends_ns: dict[str, int] = {}
        self._missed: dict[str, set[str]] = {}

    def add(self, recording_id: str, until: Mapping[str, int], end_ns: int) -> None:
        """The recording awaits tracks, at least one, and ends at `end_ns` when it has them."""
        self._until[recording_id] = dict(until)
        self._ends_ns[recording_id] = end_ns

    def of(self, recording_id: str) -> Mapping[str, int]:
        """What the recording still awaits; nothing of one that has all."""
        return self._until.get(recording_id, {})

    def missed(self, recording_id: str) -> frozenset[str]:
        """Of these tracks nothing will come any more: their participants left."""
        return frozenset(self._missed.get(recording_id, ()))

    def takers(self, key: str) -> list[str]:
        """The recordings that await the track."""
        return [recording_id for recording_id, until in self._until.items() if key in until]

    def limit(self, key: str) -> int | None:
        """The sequence after which a recording takes no more of the track; None if nobody awaits it."""
        return min((until[key] for until in self._until.values() if key in until), default=None)

    def has_come(self, key: str, sequence: int) -> None:
        """The feed has the track up to `sequence`."""
        for recording_id in self.takers(key):
            if self._until[recording_id][key] <= sequence:
                self.end(recording_id, key)

    def has_left(self, key: str) -> None:
        """The track's participant left."""
        for recording_id in self.takers(key):
            self._missed.setdefault(recording_id, set()).add(key)

    def end(self, recording_id: str, key: str) -> None:
        """The recording awaits the track no longer; with the last one it ends."""
        until = self._until[recording_id]
        del until[key]
        if until:
            self._feed.set_tracks(recording_id, until)
            return
        del self._until[recording_id]
        self._missed.pop(recording_id, None)
        self._feed.stop_recording(recording_id, self._ends_ns.pop(recording_id))


def split_batch(batch: bytes, limit: int) -> tuple[tuple[int, bytes] | None, bytes | None]:
    """What of a serialized FrameBatch is up to the sequence `limit`, with its highest, and what is behind it.

    Either is None if there are no such frames.
    """
    whole = ingest_pb2.FrameBatch.FromString(batch)
    head = [frame for frame in whole.frames if frame.sequence <= limit]
    rest = [frame for frame in whole.frames if frame.sequence > limit]
    if not head:
        return None, batch
    highest = max(frame.sequence for frame in head)
    if not rest:
        return (highest, batch), None
    before = ingest_pb2.FrameBatch(track_id=whole.track_id, frames=head)
    if whole.HasField("sent_time"):
        before.sent_time.CopyFrom(whole.sent_time)
        # The rest follows: there is no silence in between.
        captured_ns = min(frame.capture_time.ToNanoseconds() for frame in rest)
        complete = whole.complete_time if whole.HasField("complete_time") else whole.sent_time
        before.complete_time.FromNanoseconds(min(captured_ns, complete.ToNanoseconds()))
    del whole.frames[:]
    whole.frames.extend(rest)
    return (highest, before.SerializeToString()), whole.SerializeToString()
