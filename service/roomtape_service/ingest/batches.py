"""Checks of what a publisher sends: pure, and cheap, since every batch passes here."""

from collections.abc import Collection, Mapping

from google.protobuf import timestamp_pb2

from roomtape.v1 import error_pb2, ingest_pb2, media_pb2, room_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.errors import Refusal, field_refusal
from roomtape_service.recording.aac import AAC_RATES
from roomtape_service.rpc import validation

__all__ = ["MAX_FRAMES", "check_batch", "check_open", "check_sent_time", "sent_ns", "tracks_of"]

MAX_FRAMES = 512
"""Frames of a batch, as the contract says at FrameBatch."""

_MAX_TRACKS = 8
_MAX_PAYLOAD_BYTES = 384 * 1024
_OPUS_RATE_HZ = 48000
_LAST_SECOND = 9_000_000_000
"""Of the year 2255: times beyond it, with what is counted from them, do not fit into 64 bits of nanoseconds."""
_G711_RATE_HZ = 8000
_PCM_RATES_HZ = (8000, 16000, 24000, 32000, 44100, 48000)
_RATES_HZ: Mapping[media_pb2.Codec.ValueType, tuple[str, Collection[int]]] = {
    media_pb2.CODEC_OPUS: ("Opus", (_OPUS_RATE_HZ,)),
    media_pb2.CODEC_PCM_S16LE: ("PCM", _PCM_RATES_HZ),
    media_pb2.CODEC_AAC: ("AAC", AAC_RATES),
    media_pb2.CODEC_PCMU: ("PCMU", (_G711_RATE_HZ,)),
    media_pb2.CODEC_PCMA: ("PCMA", (_G711_RATE_HZ,)),
}
"""By codec that can be published: its name and rates. One that has a single rate need not say it."""


def check_open(request: ingest_pb2.PublishOpen, clock_is_media: bool) -> None:
    """Raises Refusal with the field of the first message that is at fault."""
    problems = [
        validation.app_id(request.app_id, "open.app_id"),
        validation.room_id(request.room_id, "open.room_id"),
        validation.user_id(request.user_id, "open.user_id"),
        validation.publish_session_id(request.publish_session_id, "open.publish_session_id"),
        validation.timestamp(request.sent_time if request.HasField("sent_time") else None, "open.sent_time"),
    ]
    if clock_is_media:
        what = "the time of joining on the room's MEDIA clock"
        problems.append(validation.present(request.HasField("sent_time"), "open.sent_time", what))
    problems += [
        validation.track_id(offer.track_id, f"open.tracks[{index}].track_id")
        for index, offer in enumerate(request.tracks)
    ]
    validation.refuse(*problems)
    if not 1 <= len(request.tracks) <= _MAX_TRACKS:
        raise field_refusal(
            error_pb2.ERROR_REASON_INVALID_VALUE,
            "open.tracks",
            f"{len(request.tracks)} tracks; offer 1 to {_MAX_TRACKS}",
            count=str(len(request.tracks)),
        )
    seen: set[str] = set()
    for index, offer in enumerate(request.tracks):
        _check_offer(offer, f"open.tracks[{index}]")
        if offer.track_id in seen:
            raise field_refusal(
                error_pb2.ERROR_REASON_INVALID_VALUE,
                f"open.tracks[{index}].track_id",
                f"{offer.track_id!r} stands twice; each track needs an id of its own",
                trackId=offer.track_id,
            )
        seen.add(offer.track_id)


def tracks_of(request: ingest_pb2.PublishOpen) -> list[room_pb2.Track]:
    """The offered tracks with all defaults filled in."""
    return [
        room_pb2.Track(
            track_id=offer.track_id,
            source=offer.source or media_pb2.TRACK_SOURCE_MAIN,
            codec=offer.codec,
            sample_rate_hz=offer.sample_rate_hz or min(_RATES_HZ[offer.codec][1]),
            channels=offer.channels or 1,
        )
        for offer in request.tracks
    ]


def check_batch(batch: ingest_pb2.FrameBatch) -> int:
    """The highest sequence of the batch, 0 if it has no frames.

    Raises Refusal BATCH_TOO_LARGE, EMPTY_PAYLOAD, FRAME_SEQUENCE_INVALID, FRAME_TIME_INVALID.
    """
    frames = batch.frames
    if len(frames) > MAX_FRAMES:
        raise field_refusal(
            error_pb2.ERROR_REASON_BATCH_TOO_LARGE,
            "frames.frames",
            f"{len(frames)} frames; send at most {MAX_FRAMES} in a batch",
            count=str(len(frames)),
            limit=str(MAX_FRAMES),
        )
    highest = 0
    for frame in frames:
        sequence, media, capture = frame.sequence, frame.media_time, frame.capture_time
        if not (
            sequence > highest
            and 0 < len(frame.payload) <= _MAX_PAYLOAD_BYTES
            and 0 <= media.seconds <= _LAST_SECOND
            and 0 <= media.nanos < NANOSECONDS
            # What has seconds is there.
            and 0 < capture.seconds <= _LAST_SECOND
            and 0 <= capture.nanos < NANOSECONDS
        ):
            _check_frame(batch, frame)
        if sequence > highest:
            highest = sequence
    if batch.HasField("sent_time"):
        check_sent_time(batch.sent_time, "frames.sent_time")
    if batch.HasField("complete_time"):
        check_sent_time(batch.complete_time, "frames.complete_time")
    return highest


def _check_frame(batch: ingest_pb2.FrameBatch, frame: ingest_pb2.Frame) -> None:
    """Raises Refusal for a frame that is not as it must be; one that is only unusual passes."""
    if frame.sequence < 1:
        raise _frame_refusal(
            batch, frame, error_pb2.ERROR_REASON_FRAME_SEQUENCE_INVALID, "sequence", "numbers start at 1"
        )
    size = len(frame.payload)
    if not 0 < size <= _MAX_PAYLOAD_BYTES:
        raise _size_refusal(batch, frame, size)
    media, capture = frame.media_time, frame.capture_time
    if not (
        0 <= media.seconds <= _LAST_SECOND
        and 0 <= media.nanos < NANOSECONDS
        and 0 <= capture.seconds <= _LAST_SECOND
        and 0 <= capture.nanos < NANOSECONDS
        and frame.HasField("capture_time")
    ):
        raise _time_refusal(batch, frame)


def check_sent_time(sent_time: timestamp_pb2.Timestamp, field: str) -> None:
    """Raises Refusal FRAME_TIME_INVALID for what is no time, or one that no clock of a publisher shows."""
    if not 0 <= sent_time.seconds <= _LAST_SECOND or not 0 <= sent_time.nanos < NANOSECONDS:
        shown = f"{sent_time.seconds} s and {sent_time.nanos} ns"
        raise field_refusal(
            error_pb2.ERROR_REASON_FRAME_TIME_INVALID,
            field,
            f"{shown} is no time from 1970 to 2255",
            value=shown,
        )


def sent_ns(batch: ingest_pb2.FrameBatch) -> int:
    """Up to when the publisher has sent everything, in nanoseconds; 0 if it does not say."""
    if batch.HasField("complete_time"):
        return batch.complete_time.seconds * NANOSECONDS + batch.complete_time.nanos
    if batch.HasField("sent_time"):
        return batch.sent_time.seconds * NANOSECONDS + batch.sent_time.nanos
    if batch.frames:
        last = batch.frames[-1].capture_time
        return last.seconds * NANOSECONDS + last.nanos
    return 0


def _check_offer(offer: ingest_pb2.TrackOffer, field: str) -> None:
    validation.refuse(validation.enum(offer.source, media_pb2.TrackSource, f"{field}.source"))
    reason = error_pb2.ERROR_REASON_INVALID_CODEC
    if offer.codec not in _RATES_HZ:
        text = f"{offer.codec} can't be published; use OPUS (1), PCM_S16LE (2), AAC (4), PCMU (5) or PCMA (6)"
        raise field_refusal(reason, f"{field}.codec", text, value=str(offer.codec))
    name, rates = _RATES_HZ[offer.codec]
    is_told = offer.sample_rate_hz or len(rates) > 1
    if is_told and offer.sample_rate_hz not in rates:
        allowed = f"{name} comes with {', '.join(map(str, rates))}"
        if len(rates) == 1:
            allowed = f"{name} has {min(rates)}, leave it out"
        text = f"{offer.sample_rate_hz} Hz; {allowed}"
        raise field_refusal(reason, f"{field}.sample_rate_hz", text, value=str(offer.sample_rate_hz))
    if offer.channels not in (0, 1, 2):
        text = f"{offer.channels} channels; publish 1 or 2"
        raise field_refusal(reason, f"{field}.channels", text, value=str(offer.channels))


def _size_refusal(batch: ingest_pb2.FrameBatch, frame: ingest_pb2.Frame, size: int) -> Refusal:
    if size == 0:
        reason, text = error_pb2.ERROR_REASON_EMPTY_PAYLOAD, "is empty; leave silent frames out"
    else:
        reason = error_pb2.ERROR_REASON_BATCH_TOO_LARGE
        text = f"has {size} bytes; at most {_MAX_PAYLOAD_BYTES} fit into a frame"
    return _frame_refusal(batch, frame, reason, "payload", text)


def _time_refusal(batch: ingest_pb2.FrameBatch, frame: ingest_pb2.Frame) -> Refusal:
    reason = error_pb2.ERROR_REASON_FRAME_TIME_INVALID
    if not frame.HasField("capture_time"):
        return _frame_refusal(batch, frame, reason, "capture_time", "is missing")
    capture = frame.capture_time
    if not 0 <= capture.seconds <= _LAST_SECOND or not 0 <= capture.nanos < NANOSECONDS:
        return _frame_refusal(batch, frame, reason, "capture_time", "is no time from 1970 to 2255")
    if frame.media_time.seconds < 0 or frame.media_time.nanos < 0:
        return _frame_refusal(
            batch, frame, reason, "media_time", "is negative; it counts from the first frame"
        )
    return _frame_refusal(batch, frame, reason, "media_time", "is no time; it counts from the first frame")


def _frame_refusal(
    batch: ingest_pb2.FrameBatch,
    frame: ingest_pb2.Frame,
    reason: error_pb2.ErrorReason.ValueType,
    field: str,
    text: str,
) -> Refusal:
    return field_refusal(
        reason,
        f"frames.frames.{field}",
        f"frame {frame.sequence} of track {batch.track_id!r}: {text}",
        trackId=batch.track_id,
        sequence=str(frame.sequence),
    )
