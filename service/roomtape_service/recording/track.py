"""A track on its way through a worker: frames come in, and go to every recording that takes them, decoded once."""

from typing import Protocol

from roomtape.v1 import ingest_pb2
from roomtape_service.recording.decoding import SAMPLE_BYTES, PayloadDecoder, is_silent, samples_in
from roomtape_service.recording.delivery import Delivery, MissingMedia, Piece
from roomtape_service.recording.opus import CorruptPacketError
from roomtape_service.recording.positions import ns_of
from roomtape_service.recording.protocol import GapReason, Rejected, RoomOpen, TrackOpen
from roomtape_service.recording.reorder import TrackFrame
from roomtape_service.recording.series import Format
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
        self.delivered = 0
        """The newest sequence that was handed out."""
        self._decoder = PayloadDecoder(track.codec, track.channels)
        self._rejected: list[Rejected] = []
        self._gap_reason = GapReason.INTERRUPTED if offset_ns is not None else None
        self._counted = (0, 0, 0)

    def begin_at(self, sequence: int, offset_ns: int) -> None:
        """Before anything came: a recording joins that already has all before `sequence`."""
        reorder = self.timeline.reorder
        if reorder.next_sequence is None or sequence < reorder.next_sequence:
            reorder.next_sequence = sequence
            self.timeline.go_on_with(offset_ns)
            self._gap_reason = GapReason.INTERRUPTED

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
        before = timeline.position
        missing: list[MissingMedia] = []
        needs_pcm = any(taker.needs_pcm for taker in self.takers)
        error = timeline.error_samples() if needs_pcm else 0
        pieces: list[Piece] = []
        while (item := timeline.take()) is not None:
            frame, lost = item
            piece = self._piece(frame, lost, needs_pcm, error)
            self.delivered = frame.sequence
            if piece is None:
                continue
            if error and piece.samples != piece.duration:
                error = timeline.error_samples()
            if self._gap_reason is not None and piece.samples:
                if lost and before is not None:
                    missing.append(MissingMedia(before, piece.position, self._gap_reason))
                self._gap_reason = None
            before = timeline.position
            pieces.append(piece)
        self._hand_out(pieces, tuple(missing))
        rejected, self._rejected = self._rejected, []
        return rejected

    def _hand_out(self, pieces: list[Piece], missing: tuple[MissingMedia, ...]) -> None:
        timeline = self.timeline
        reorder = timeline.reorder
        duplicated, reordered, late = self._counted
        delivery = Delivery(
            pieces=pieces,
            frontier=timeline.frontier(),
            step_ns=timeline.watermark_step_ns,
            duplicated=reorder.duplicated - duplicated,
            reordered=reorder.reordered - reordered,
            late=reorder.late - late,
            missing=missing,
        )
        self._counted = (reorder.duplicated, reorder.reordered, reorder.late)
        timeline.watermark_step_ns = 0
        for taker in list(self.takers):
            taker.take(self, delivery)

    def _piece(self, frame: TrackFrame, lost: int, needs_pcm: bool, error: int) -> Piece | None:
        """None for a frame that is rejected before the track has any place."""
        timeline, facts = self.timeline, self.facts
        sequence, payload = frame.sequence, frame.payload
        try:
            samples = samples_in(facts.codec, payload, facts.channels)
            position = timeline.place(frame, samples, lost)
        except (CorruptPacketError, FrameTimeError) as fault:
            self._reject(sequence, fault)
            return self._rejected_piece(sequence, lost)
        duration = samples
        packet: bytes | None = payload
        pcm = b""
        if needs_pcm:
            try:
                pcm = self._decoder.decode(payload, samples)
            except CorruptPacketError as fault:
                self._reject(sequence, fault)
                packet, pcm = None, bytes(samples * SAMPLE_BYTES * facts.channels)
            if error and is_silent(pcm):
                # No more than half of a frame goes, so that no word is cut off that begins in it.
                change = max(error, -(samples // 2))
                timeline.correct(change)
                samples += change
                block = SAMPLE_BYTES * facts.channels
                pcm = pcm + bytes(change * block) if change > 0 else pcm[: samples * block]
        end_ns = ns_of(position + samples, facts.sample_rate, self.room.epoch_ns)
        return Piece(sequence, position, samples, packet, duration, pcm, end_ns - timeline.end_media_ns, lost)

    def _rejected_piece(self, sequence: int, lost: int) -> Piece | None:
        timeline = self.timeline
        if timeline.position is None:
            return None
        end_ns = ns_of(timeline.position, self.facts.sample_rate, self.room.epoch_ns)
        return Piece(sequence, timeline.position, 0, None, 0, b"", end_ns - timeline.end_media_ns, lost)

    def _reject(self, sequence: int, fault: CorruptPacketError | FrameTimeError) -> None:
        reason = _CORRUPT if isinstance(fault, CorruptPacketError) else _TIME_INVALID
        last = self._rejected[-1] if self._rejected else None
        if last is not None and last.last == sequence - 1 and last.reason == reason:
            self._rejected[-1] = Rejected(self.facts.track, last.first, sequence, reason, last.message)
        else:
            self._rejected.append(Rejected(self.facts.track, sequence, sequence, reason, str(fault)))
