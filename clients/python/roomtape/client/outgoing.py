"""One track on its way out: what was published, what of it was sent, and what is not acknowledged."""

from collections import deque
from dataclasses import dataclass

from roomtape.client.clock import NANOSECONDS
from roomtape.client.frames import frame_samples, sample_rate_hz
from roomtape.client.timing import TrackTiming
from roomtape.v1 import ingest_pb2

__all__ = ["MAX_BATCH_BYTES", "MAX_BATCH_FRAMES", "OutgoingTrack"]

# The server takes 512 frames and 4 MiB in a batch; a frame has at most 384 KiB.
MAX_BATCH_FRAMES = 500
MAX_BATCH_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Item:
    """A frame, or a mute that stands before the frame with `sequence`."""

    sequence: int
    frame: ingest_pb2.Frame | None
    size: int
    capture_ns: int
    muted: bool = False


class OutgoingTrack:
    """Frames in the order of their sequences: acknowledged ones are gone, sent ones wait, unsent ones follow."""

    def __init__(self, offer: ingest_pb2.TrackOffer) -> None:
        self.offer = offer
        self.acknowledged = 0
        self.newest_sequence = 0
        self.complete_until_ns = 0
        """All that was captured before this time was published."""

        self.unsent_frames = 0
        self.unsent_bytes = 0
        self.unacknowledged_frames = 0
        self.unacknowledged_bytes = 0
        self.resent_frames = 0
        self._sent_sequence = 0
        self._unsent: deque[_Item] = deque()
        self._sent: deque[_Item] = deque()
        self._timing = TrackTiming(sample_rate_hz(offer))
        self._settled_mute = False

    def add(
        self, payload: bytes, now_ns: int | None, capture_ns: int | None = None, media_ns: int | None = None
    ) -> int:
        """Appends a frame; its sequence. `now_ns` is the clock of a live track, None on a MEDIA clock.

        Raises ValueError for a payload that the track's codec does not have.
        """
        samples = frame_samples(self.offer, payload)
        media_ns, capture_ns = self._timing.place(samples, now_ns, capture_ns, media_ns)
        self.newest_sequence += 1
        frame = ingest_pb2.Frame(sequence=self.newest_sequence, payload=payload)
        frame.media_time.seconds, frame.media_time.nanos = divmod(media_ns, NANOSECONDS)
        frame.capture_time.seconds, frame.capture_time.nanos = divmod(capture_ns, NANOSECONDS)
        self._unsent.append(_Item(self.newest_sequence, frame, len(payload), capture_ns))
        self._count(1, len(payload))
        self.unacknowledged_frames += 1
        self.unacknowledged_bytes += len(payload)
        self.complete_until_ns = max(self.complete_until_ns, self._timing.capture_end_ns)
        return self.newest_sequence

    def start(self, capture_ns: int) -> None:
        """Says when the track begins, where nothing was published yet."""
        if not self._timing.started:
            self._timing.start(capture_ns)
            self.complete_until_ns = capture_ns

    def mute(self, muted: bool) -> None:
        """Appends a change of the mute state."""
        self._unsent.append(_Item(self.newest_sequence + 1, None, 0, 0, muted))

    def take(self) -> ingest_pb2.PublishRequest | None:
        """The next message, without its `sent_time`; None when everything was sent."""
        if not self._unsent:
            return None
        track_id = self.offer.track_id
        frames: list[ingest_pb2.Frame] = []
        size = 0
        while self._unsent and len(frames) < MAX_BATCH_FRAMES and size < MAX_BATCH_BYTES:
            item = self._unsent[0]
            if item.frame is None:
                if frames:
                    break
                self._move()
                return ingest_pb2.PublishRequest(
                    mute=ingest_pb2.TrackMute(track_id=track_id, muted=item.muted)
                )
            self._move()
            frames.append(item.frame)
            size += item.size
        return ingest_pb2.PublishRequest(frames=ingest_pb2.FrameBatch(track_id=track_id, frames=frames))

    @property
    def has_unsent(self) -> bool:
        """Whether `take` has something."""
        return bool(self._unsent)

    def first_unsent_capture_ns(self) -> int | None:
        """When the oldest frame that was not sent was captured; None when there is none."""
        return next((item.capture_ns for item in self._unsent if item.frame is not None), None)

    def acknowledge(self, sequence: int) -> bool:
        """Lets go of everything up to `sequence`; whether that is news."""
        if sequence <= self.acknowledged:
            return False
        self.acknowledged = sequence
        while self._sent and self._sent[0].sequence <= sequence:
            self._settle(self._sent.popleft())
        owes_mute = False
        while self._unsent and self._unsent[0].sequence <= sequence:
            item = self._unsent.popleft()
            self._settle(item)
            self._count(-(item.frame is not None), -item.size)
            owes_mute = owes_mute or item.frame is None
        if owes_mute:
            # The server has the frames behind it, but may have heard of a later change.
            self._unsent.appendleft(self._settled_mute_item())
        return True

    def rewind(self, resumed: bool) -> None:
        """A new stream: everything that is not acknowledged has to be sent on it.

        The mute state before them too, unless the server has it: it resumed the session (`resumed`), and heard of no
        change after them.
        """
        knows_mute = resumed and all(item.frame is not None for item in self._sent)
        for item in reversed(self._sent):
            self._unsent.appendleft(item)
            self._count(item.frame is not None, item.size)
        self._sent.clear()
        if not knows_mute and (resumed or self._settled_mute):
            self._unsent.appendleft(self._settled_mute_item())

    def _settled_mute_item(self) -> _Item:
        return _Item(self.acknowledged + 1, None, 0, 0, muted=self._settled_mute)

    def _move(self) -> None:
        item = self._unsent.popleft()
        self._sent.append(item)
        self._count(-(item.frame is not None), -item.size)
        if item.frame is not None:
            self.resent_frames += item.sequence <= self._sent_sequence
            self._sent_sequence = max(self._sent_sequence, item.sequence)

    def _settle(self, item: _Item) -> None:
        if item.frame is None:
            self._settled_mute = item.muted
        else:
            self.unacknowledged_frames -= 1
            self.unacknowledged_bytes -= item.size

    def _count(self, frames: int, size: int) -> None:
        self.unsent_frames += frames
        self.unsent_bytes += size
