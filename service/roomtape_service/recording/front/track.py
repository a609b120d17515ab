"""A track as its room's feed knows it: what is held of it, and what is acknowledged."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from roomtape_service import failpoints
from roomtape_service.recording import protocol
from roomtape_service.recording.front.held import HeldFrames

__all__ = ["FeedTrack", "TrackFacts"]


@dataclass(frozen=True, slots=True)
class TrackFacts:
    """What a worker must know of a track; `key` names it in its room, across connections."""

    key: str
    user_id: str
    codec: protocol.TrackCodec
    sample_rate: int
    channels: int


@dataclass(slots=True, eq=False)
class FeedTrack:
    """One track of a room's feed.

    `recordings` are the recordings that take it, those that are being stopped included: while there is one, frames
    are held until the worker says that they are safe; without one, frames are acknowledged as they come. Of a track
    that `is_restored` from before the node's start nobody knows what was acknowledged but no recording's.
    """

    handle: int
    facts: TrackFacts
    acknowledged: int = 0
    recordings: set[str] = field(default_factory=set)
    held: HeldFrames = field(default_factory=HeldFrames)
    is_restored: bool = False
    is_open: bool = False
    is_connected: bool = True
    closed_at_ns: int | None = None
    kept: Path | None = None
    """Where what is held is on disk too, of a track whose participant left."""
    on_acknowledged: Callable[[], None] | None = None
    on_rejected: Callable[[protocol.Rejected], None] | None = None

    @property
    def safe_sequence(self) -> int:
        """Up to where the publisher needs to send nothing again."""
        return self.acknowledged if self.kept is None else max(self.acknowledged, self.held.newest())

    def drop_kept(self) -> None:
        """What was kept is in every recording, or comes again."""
        if self.kept is not None:
            failpoints.hit("departed.forget")
            self.kept.unlink(missing_ok=True)
            self.kept = None

    def acknowledge(self, sequence: int) -> None:
        """Everything up to `sequence` is safe."""
        self.held.release(sequence)
        if sequence > self.acknowledged:
            self.acknowledged = sequence
            self._changed()

    def acknowledge_all(self) -> None:
        """No recording wants what is held."""
        newest = self.held.newest()
        if newest:
            self.acknowledge(newest)

    def _changed(self) -> None:
        if self.on_acknowledged is not None:
            self.on_acknowledged()
