"""A track on its way through a worker: frames come in, and go to every recording that takes them, decoded once."""

from collections.abc import Sequence
from typing import Protocol

from roomtape.v1 import ingest_pb2
from roomtape_service.recording.decoding import SAMPLE_BYTES, is_silent, payload_decoder, samples_in, sizes_in
from roomtape_service.recording.delivery import Delivery, MissingMedia, Piece, Run
from roomtape_service.recording.marks import Format
from roomtape_service.recording.opus import CorruptPacketError
from roomtape_service.recording.protocol import GapReason, Rejected, RoomOpen, TrackOpen
from roomtape_service.recording.reorder import TrackFrame
from roomtape_service.recording.timeline import FrameTimeError, TrackTimeline

__all__ = ["Lane", "TrackTaker"]

_CORRUPT = "CORRUPT_PAYLOAD"
_TIME_INVALID = "FRAME_TIME_INVALID"


class TrackTaker(Protocol):
    """A recording, as a track sees it."""

    @property
    def needs_pcm(self) -> bool:
        """Whether payloads must be decoded for it."""
        ...

    def take(self, lane: "Lane", delivery: Delivery) -> None:
        """Takes what the track delivers. Errors are the recording's own."""
        ...


class Lane:
    """One reading of a track: recordings on it have the same frames in the same places.

    A recording that has to go back behind the newest frame of a lane gets a lane of its own.
    """

    def __init__(
        self, track: TrackOpen, room: RoomOpen, *, offset_ns: int | None, next_sequence: int | None
    ) -> None:
        self.facts = track
        self.room = room
        self.format = Format(track.codec, track.sample_rate, track.channels)
        self.timeline = TrackTimeline(
            track.sample_rate, room.clock, room.epoch_ns, offset_ns=offset_ns, next_sequence=next_sequence
        )
        self.takers: list[TrackTaker] = []
        self.delivered = 0 if next_sequence is None else next_sequence - 1
        """The newest sequence that was handed out, or that nobody here lacks."""
        self._decoder = payload_decoder(track.codec, track.sample_rate, track.channels)
        self._rejected: list[Rejected] = []
        self._gap_reason = room.gap_reason if offset_ns is not None else None
        self._counted = (0, 0, 0)

    def begin_at(self, sequence: int, offset_ns: int) -> None:
        """Before anything came: a recording joins that has all before `sequence`, and lacks more than the others."""
        self.timeline.reorder.next_sequence = sequence
        self.delivered = sequence - 1
        self.timeline.go_on_with(offset_ns)
        self._gap_reason = self.room.gap_reason

    def push(self, batch: ingest_pb2.FrameBatch, arrival_ns: int) -> int:
        """Takes a batch. Returns how many frames wait to be delivered."""
        return self.timeline.push(batch, arrival_ns)

    def publisher_lost(self) -> None:
        """What is missing from here on is missing because the connection broke."""
        self._gap_reason = GapReason.PUBLISHER_LOST

    def deliver(self, now_ns: int, *, everything: bool = False) -> list[Rejected]:
        """Hands out what is in order; with `everything` waits for nothing that is missing.

        Returns what was rejected on the way.
        """
        timeline = self.timeline
        timeline.release(now_ns, everything=everything)
        items = timeline.take()
        missing: list[MissingMedia] = []
        pieces = self._pieces(items, missing) if items else []
        reorder = timeline.reorder
        counted = (reorder.duplicated, reorder.reordered, reorder.late)
        duplicated, reordered, late = self._counted
        delivery = Delivery(
            pieces=pieces,
            frontier=timeline.frontier(),
            step_ns=timeline.watermark_step_ns,
            duplicated=counted[0] - duplicated,
            reordered=counted[1] - reordered,
            late=counted[2] - late,
            missing=tuple(missing),
        )
        self._counted = counted
        timeline.watermark_step_ns = 0
        for taker in list(self.takers):
            taker.take(self, delivery)
        rejected, self._rejected = self._rejected, []
        return rejected

    def _pieces(self, items: list[tuple[TrackFrame, int]], missing: list[MissingMedia]) -> list[Piece | Run]:
        timeline, needs_pcm = self.timeline, any(taker.needs_pcm for taker in self.takers)
        frames = [frame for frame, _ in items]
        sizes = self._sizes(frames)
        pcms: list[bytes | None] = [b""] * len(frames)
        if needs_pcm:
            pcms = self._decoded(frames, sizes)
        error = timeline.error_samples() if needs_pcm else 0
        pieces: list[Piece | Run] = []
        index = 0
        while index < len(items):
            if not error and self._gap_reason is None:
                end = _plain_end(items, sizes, pcms, index)
                if end > index:
                    index += self._add_runs(pieces, frames[index:end], sizes[index], pcms[index:end])
                if index == len(items):
                    break
            (frame, lost), samples, pcm = items[index], sizes[index], pcms[index]
            index += 1
            before = timeline.position
            piece = self._piece(frame, lost, samples, pcm, error)
            self.delivered = frame.sequence
            if piece is None:
                continue
            pieces.append(piece)
            if error and piece.samples != piece.duration:
                error = timeline.error_samples()
            if self._gap_reason is not None and piece.samples:
                if lost:
                    start = piece.position - lost * piece.duration if before is None else before
                    missing.append(MissingMedia(start, piece.position, self._gap_reason))
                self._gap_reason = None
        return pieces

    def _add_runs(
        self, pieces: list[Piece | Run], frames: Sequence[TrackFrame], size: int, pcms: Sequence[bytes | None]
    ) -> int:
        """Adds frames between which nothing is missing; returns how many, since one may have an invalid time."""
        timeline = self.timeline
        at = 0
        duration_ns = timeline.duration_ns(size)
        for position, count in timeline.place_all(frames, size):
            until = at + count
            those = frames[at:until]
            pcm = b"".join([each for each in pcms[at:until] if each])
            packets = [each.payload for each in those]
            ends_ns = [each.media_ns + duration_ns for each in those]
            pieces.append(Run(those[0].sequence, position, size, packets, pcm, ends_ns))
            at = until
        if at:
            self.delivered = frames[at - 1].sequence
        return at

    def _sizes(self, frames: list[TrackFrame]) -> list[int]:
        """Samples of each frame: none if its payload is none at all."""
        codec, rate, channels = self.facts.codec, self.facts.sample_rate, self.facts.channels
        try:
            return sizes_in(codec, [frame.payload for frame in frames], rate, channels)
        except CorruptPacketError:
            pass
        sizes: list[int] = []
        for frame in frames:
            try:
                sizes.append(samples_in(codec, frame.payload, rate, channels))
            except CorruptPacketError as fault:
                sizes.append(0)
                self._reject(frame.sequence, _CORRUPT, str(fault))
        return sizes

    def _decoded(self, frames: list[TrackFrame], sizes: list[int]) -> list[bytes | None]:
        """PCM of each frame: None if it has no samples, or can't be decoded."""
        payloads = [frame.payload for frame in frames]
        if 0 not in sizes:
            return self._decoder.decode(payloads, sizes)
        sound = [(payload, size) for payload, size in zip(payloads, sizes, strict=True) if size]
        pcm = iter(self._decoder.decode([payload for payload, _ in sound], [size for _, size in sound]))
        return [next(pcm) if size else None for size in sizes]

    def _piece(
        self, frame: TrackFrame, lost: int, samples: int, pcm: bytes | None, error: int
    ) -> Piece | None:
        """None for a frame that is rejected before the track has any place."""
        timeline = self.timeline
        if not samples:
            return self._rejected_piece(frame.sequence, lost)
        try:
            position = timeline.place(frame, samples, lost)
        except FrameTimeError as fault:
            self._reject(frame.sequence, _TIME_INVALID, str(fault))
            return self._rejected_piece(frame.sequence, lost)
        duration = samples
        packet: bytes | None = frame.payload
        if pcm is None:
            self._reject(frame.sequence, _CORRUPT, "the payload can't be decoded")
            packet, pcm = None, bytes(samples * SAMPLE_BYTES * self.facts.channels)
        if error and is_silent(pcm):
            # No more than half of a frame goes, so that no word is cut off that begins in it.
            change = max(error, -(samples // 2))
            timeline.correct(change)
            samples += change
            block = SAMPLE_BYTES * self.facts.channels
            pcm = pcm + bytes(change * block) if change > 0 else pcm[: samples * block]
        return Piece(frame.sequence, position, samples, packet, duration, pcm, timeline.end_media_ns, lost)

    def _rejected_piece(self, sequence: int, lost: int) -> Piece | None:
        position = self.timeline.position
        if position is None:
            return None
        return Piece(sequence, position, 0, None, 0, b"", self.timeline.end_media_ns, lost)

    def _reject(self, sequence: int, reason: str, message: str) -> None:
        last = self._rejected[-1] if self._rejected else None
        if last is not None and last.last == sequence - 1 and last.reason == reason:
            self._rejected[-1] = Rejected(self.facts.track, last.first, sequence, reason, last.message)
        else:
            self._rejected.append(Rejected(self.facts.track, sequence, sequence, reason, message))


def _plain_end(
    items: list[tuple[TrackFrame, int]], sizes: list[int], pcms: list[bytes | None], start: int
) -> int:
    """Where frames end, from `start` on, that are sound and equally long, and between which nothing is missing."""
    size, end = sizes[start], start
    if size:
        while end < len(items) and sizes[end] == size and not items[end][1] and pcms[end] is not None:
            end += 1
    return end
