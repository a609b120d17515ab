"""IngestService.Publish: messages that end a stream."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf import timestamp_pb2

from roomtape.v1 import ingest_pb2, media_pb2
from tests.integration.bad_input.cases import covers
from tests.integration.bad_input.content import FRAME_SAMPLES
from tests.integration.bad_input.publishing import Message, batch, frame, opening
from tests.integration.bad_input.refusals import Expected
from tests.integration.bad_input.witness import TRACK, offer_of
from tests.integration.bad_input.world import World

__all__ = ["AFTER_OPENED", "BEFORE_OPENED", "StreamCase"]

_PCM, _AAC = media_pb2.CODEC_PCM_S16LE, media_pb2.CODEC_AAC
_PAYLOAD = b"\1\0" * FRAME_SAMPLES
_MAX_PAYLOAD_BYTES = 384 * 1024
_UNKNOWN = 99
# After the year 9999, and after what 64 bits of nanoseconds hold.
_AFTER_TIME = 253_402_300_800
_AFTER_NANOSECONDS = 9_223_372_037


@dataclass(frozen=True, slots=True)
class StreamCase:
    """What is sent on a stream and ends it, with the frames that came before acknowledged as ever."""

    about: str
    messages: Callable[[World], Sequence[Message]]
    reason: str
    fields: tuple[str, ...]
    metadata: Callable[[World], Mapping[str, str]]

    @property
    def name(self) -> str:
        """What pytest calls it."""
        return f"{self.reason}-{self.about}".replace(" ", "-")

    def expected(self, world: World) -> Expected:
        """What the refusal must say."""
        return Expected(self.reason, self.fields, self.metadata(world))


def _case(
    about: str,
    messages: Callable[[World], Sequence[Message]],
    reason: str,
    *fields: str,
    metadata: Callable[[World], Mapping[str, str]] | None = None,
) -> StreamCase:
    covers("IngestService.Publish", reason)(_case)
    return StreamCase(about, messages, reason, fields, metadata or (lambda _world: {}))


def _open(
    about: str,
    change: Callable[[ingest_pb2.PublishOpen, World], None],
    reason: str,
    *fields: str,
    metadata: Callable[[World], Mapping[str, str]] | None = None,
) -> StreamCase:
    """A case of an opening that would be good without `change`."""

    def messages(world: World) -> Sequence[Message]:
        request = opening(world.room_id, "mallory", [offer_of(_PCM)])
        change(request, world)
        return [ingest_pb2.PublishRequest(open=request)]

    return _case(about, messages, reason, *fields, metadata=metadata)


def _offer(about: str, change: Callable[[ingest_pb2.TrackOffer], None], field: str, value: str) -> StreamCase:
    return _open(
        about,
        lambda request, _: change(request.tracks[0]),
        "INVALID_CODEC",
        f"open.tracks[0].{field}",
        metadata=lambda _: {"value": value},
    )


def _set(name: str, value: object) -> Callable[[ingest_pb2.PublishOpen, World], None]:
    return lambda request, _: setattr(request, name, value)


def _set_offer(**values: int) -> Callable[[ingest_pb2.TrackOffer], None]:
    def change(offer: ingest_pb2.TrackOffer) -> None:
        for name, value in values.items():
            setattr(offer, name, value)

    return change


def _with_tracks(*track_ids: str) -> Callable[[ingest_pb2.PublishOpen, World], None]:
    def change(request: ingest_pb2.PublishOpen, _world: World) -> None:
        del request.tracks[:]
        request.tracks.extend(offer_of(_PCM, track_id) for track_id in track_ids)

    return change


def _resumes_otherwise(request: ingest_pb2.PublishOpen, world: World) -> None:
    request.user_id = "pcm"
    request.publish_session_id = world.witness.voices["pcm"].publisher.publish_session_id
    request.tracks[0].sample_rate_hz = 8000


BEFORE_OPENED = (
    _case("nothing in it", lambda _: [b""], "PUBLISH_NOT_OPENED", "open"),
    _case("frames first", lambda _: [batch([frame(1, _PAYLOAD)])], "PUBLISH_NOT_OPENED", "open"),
    _case(
        "close first",
        lambda _: [ingest_pb2.PublishRequest(close=ingest_pb2.PublishClose())],
        "PUBLISH_NOT_OPENED",
        "open",
    ),
    _case(
        "mute first",
        lambda _: [ingest_pb2.PublishRequest(mute=ingest_pb2.TrackMute(track_id=TRACK, muted=True))],
        "PUBLISH_NOT_OPENED",
        "open",
    ),
    _case("bytes that are no message", lambda _: [b"\xff" * 50], "INVALID_VALUE"),
    _open("no application", _set("app_id", ""), "FIELD_REQUIRED", "open.app_id"),
    _open("application with slash", _set("app_id", "app/.."), "INVALID_ID", "open.app_id"),
    _open(
        "unknown application",
        _set("app_id", "nobody"),
        "APPLICATION_NOT_FOUND",
        metadata=lambda _: {"appId": "nobody"},
    ),
    _open("no room", _set("room_id", ""), "FIELD_REQUIRED", "open.room_id"),
    _open("room with a control", _set("room_id", "\x1b"), "INVALID_ID", "open.room_id"),
    _open(
        "missing room",
        _set("room_id", "../nowhere"),
        "ROOM_NOT_FOUND",
        metadata=lambda _: {"appId": "app", "roomId": "../nowhere"},
    ),
    _open("no user", _set("user_id", ""), "FIELD_REQUIRED", "open.user_id"),
    _open("over-long user", _set("user_id", "😀" * 33), "INVALID_ID", "open.user_id"),
    _open("user with a control", _set("user_id", "a\0b"), "INVALID_ID", "open.user_id"),
    _open("no session", _set("publish_session_id", ""), "FIELD_REQUIRED", "open.publish_session_id"),
    _open("session with slash", _set("publish_session_id", "a/b"), "INVALID_ID", "open.publish_session_id"),
    _open("over-long session", _set("publish_session_id", "s" * 65), "INVALID_ID", "open.publish_session_id"),
    _open("no track", _with_tracks(), "INVALID_VALUE", "open.tracks", metadata=lambda _: {"count": "0"}),
    _open(
        "nine tracks",
        _with_tracks(*(f"t{number}" for number in range(9))),
        "INVALID_VALUE",
        "open.tracks",
        metadata=lambda _: {"count": "9"},
    ),
    _open(
        "a track twice",
        _with_tracks("a", "b", "a"),
        "INVALID_VALUE",
        "open.tracks[2].track_id",
        metadata=lambda _: {"trackId": "a"},
    ),
    _open("track without id", _with_tracks(""), "FIELD_REQUIRED", "open.tracks[0].track_id"),
    _open("track with emoji", _with_tracks("a", "🎤"), "INVALID_ID", "open.tracks[1].track_id"),
    _open(
        "unknown source",
        lambda request, _: setattr(request.tracks[0], "source", _UNKNOWN),
        "INVALID_VALUE",
        "open.tracks[0].source",
    ),
    _offer("no codec", _set_offer(codec=0), "codec", "0"),
    _offer("unknown codec", _set_offer(codec=_UNKNOWN), "codec", "99"),
    _offer("MP3", _set_offer(codec=media_pb2.CODEC_MP3), "codec", "3"),
    _offer("AAC without a rate", _set_offer(codec=_AAC, sample_rate_hz=0), "sample_rate_hz", "0"),
    _offer("AAC below 8 kHz", _set_offer(codec=_AAC, sample_rate_hz=7_350), "sample_rate_hz", "7350"),
    _offer("AAC above 48 kHz", _set_offer(codec=_AAC, sample_rate_hz=64_000), "sample_rate_hz", "64000"),
    _offer("AAC of six channels", _set_offer(codec=_AAC, channels=6), "channels", "6"),
    _offer(
        "PCMU of 16 kHz",
        _set_offer(codec=media_pb2.CODEC_PCMU, sample_rate_hz=16_000),
        "sample_rate_hz",
        "16000",
    ),
    _offer("PCMA of 48 kHz", _set_offer(codec=media_pb2.CODEC_PCMA), "sample_rate_hz", "48000"),
    _offer("PCM without rate", _set_offer(sample_rate_hz=0), "sample_rate_hz", "0"),
    _offer("PCM at 11,025 Hz", _set_offer(sample_rate_hz=11_025), "sample_rate_hz", "11025"),
    _offer(
        "Opus at 44,100 Hz",
        _set_offer(codec=media_pb2.CODEC_OPUS, sample_rate_hz=44_100),
        "sample_rate_hz",
        "44100",
    ),
    _offer("three channels", _set_offer(channels=3), "channels", "3"),
    _offer("negative channels", _set_offer(channels=-1), "channels", "-1"),
    _open(
        "no time in a MEDIA room",
        lambda request, _: request.ClearField("sent_time"),
        "FIELD_REQUIRED",
        "open.sent_time",
    ),
    _open(
        "a time that is none",
        lambda request, _: request.sent_time.CopyFrom(timestamp_pb2.Timestamp(seconds=-1)),
        "INVALID_VALUE",
        "open.sent_time",
    ),
    _open(
        "a time after all times",
        lambda request, _: request.sent_time.CopyFrom(timestamp_pb2.Timestamp(seconds=_AFTER_TIME)),
        "INVALID_VALUE",
        "open.sent_time",
    ),
    _open(
        "a user who publishes",
        _set("user_id", "pcm"),
        "ALREADY_PUBLISHING",
        metadata=lambda world: {
            "userId": "pcm",
            "publishSessionId": world.witness.voices["pcm"].publisher.publish_session_id,
        },
    ),
    _open("another's session with other tracks", _resumes_otherwise, "INVALID_VALUE", "open.tracks"),
)

_GOOD_FRAMES = 5


def _next(**values: object) -> ingest_pb2.Frame:
    """The frame that would come next, with some values set otherwise."""
    made = frame(_GOOD_FRAMES + 1, _PAYLOAD)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def _timed(
    name: str, *, seconds: int = 0, nanos: int = 0, is_set: bool = True
) -> Callable[[World], Sequence[Message]]:
    """The next frame with a time of its own."""
    made = _next()
    made.ClearField("media_time" if name == "media_time" else "capture_time")
    if is_set:
        time = made.media_time if name == "media_time" else made.capture_time
        time.seconds, time.nanos = seconds, nanos
    return lambda _world: [batch([made])]


def _sent(*, seconds: int, nanos: int = 0) -> Callable[[World], Sequence[Message]]:
    request = batch([])
    request.frames.sent_time.seconds, request.frames.sent_time.nanos = seconds, nanos
    return lambda _world: [request]


def _complete(*, seconds: int) -> Callable[[World], Sequence[Message]]:
    request = batch([], sent_ns=0)
    request.frames.complete_time.seconds = seconds
    return lambda _world: [request]


def _closed(*, seconds: int) -> Callable[[World], Sequence[Message]]:
    request = ingest_pb2.PublishRequest(close=ingest_pb2.PublishClose())
    request.close.sent_time.seconds = seconds
    return lambda _world: [request]


def _about(sequence: int) -> Callable[[World], Mapping[str, str]]:
    return lambda _world: {"trackId": TRACK, "sequence": str(sequence)}


_SEQUENCE, _PAYLOADS = "FRAME_SEQUENCE_INVALID", "frames.frames.payload"
_TIME, _CAPTURE, _MEDIA = (
    "FRAME_TIME_INVALID",
    "frames.frames.capture_time",
    "frames.frames.media_time",
)

AFTER_OPENED = (
    _case(
        "opened twice",
        lambda world: [ingest_pb2.PublishRequest(open=opening(world.room_id, "mallory", [offer_of(_PCM)]))],
        "PUBLISH_NOT_OPENED",
        "open",
    ),
    _case("nothing in it", lambda _: [b""], "PUBLISH_NOT_OPENED", "open"),
    _case("a field of another time", lambda _: [b"\x98\x06\x01"], "PUBLISH_NOT_OPENED", "open"),
    _case("bytes that are no message", lambda _: [b"\x12\xff"], "INVALID_VALUE"),
    _case(
        "frames of a track that was not opened",
        lambda _: [batch([_next()], "camera")],
        "UNKNOWN_TRACK",
        "frames.track_id",
        metadata=lambda _: {"trackId": "camera", "tracks": TRACK},
    ),
    _case("frames of no track", lambda _: [batch([_next()], "")], "UNKNOWN_TRACK", "frames.track_id"),
    _case(
        "a mute of a track that was not opened",
        lambda _: [ingest_pb2.PublishRequest(mute=ingest_pb2.TrackMute(track_id="../mic"))],
        "UNKNOWN_TRACK",
        "mute.track_id",
        metadata=lambda _: {"trackId": "../mic"},
    ),
    _case(
        "no payload",
        lambda _: [batch([_next(payload=b"")])],
        "EMPTY_PAYLOAD",
        _PAYLOADS,
        metadata=_about(_GOOD_FRAMES + 1),
    ),
    _case(
        "a good frame before an empty one",
        lambda _: [batch([_next(), _next(sequence=_GOOD_FRAMES + 2, payload=b"")])],
        "EMPTY_PAYLOAD",
        _PAYLOADS,
        metadata=_about(_GOOD_FRAMES + 2),
    ),
    _case(
        "a frame of one byte too much",
        lambda _: [batch([_next(payload=bytes(_MAX_PAYLOAD_BYTES + 1))])],
        "BATCH_TOO_LARGE",
        _PAYLOADS,
    ),
    _case(
        "513 frames",
        lambda _: [batch([frame(_GOOD_FRAMES + 1 + index, _PAYLOAD) for index in range(513)])],
        "BATCH_TOO_LARGE",
        "frames.frames",
        metadata=lambda _: {"count": "513", "limit": "512"},
    ),
    _case(
        "a message over 4 MiB",
        lambda _: [batch([frame(_GOOD_FRAMES + 1 + n, bytes(_MAX_PAYLOAD_BYTES)) for n in range(11)])],
        "BATCH_TOO_LARGE",
        "frames",
        metadata=lambda _: {"limitBytes": str(4 << 20)},
    ),
    _case("sequence 0", lambda _: [batch([_next(sequence=0)])], _SEQUENCE, "frames.frames.sequence"),
    _case(
        "a negative sequence",
        lambda _: [batch([_next(sequence=-(2**63))])],
        _SEQUENCE,
        "frames.frames.sequence",
        metadata=_about(-(2**63)),
    ),
    _case("no capture time", _timed("capture_time", is_set=False), _TIME, _CAPTURE, metadata=_about(6)),
    _case("captured before 1970", _timed("capture_time", seconds=-1), _TIME, _CAPTURE),
    _case("captured in no time", _timed("capture_time", nanos=10**9), _TIME, _CAPTURE),
    _case("captured after all times", _timed("capture_time", seconds=_AFTER_NANOSECONDS), _TIME, _CAPTURE),
    _case("negative media time", _timed("media_time", seconds=-1), _TIME, _MEDIA),
    _case("media time that is none", _timed("media_time", nanos=2**31 - 1), _TIME, _MEDIA),
    _case("media time of ages", _timed("media_time", seconds=2**62), _TIME, _MEDIA),
    _case("sent before 1970", _sent(seconds=-(2**62)), _TIME, "frames.sent_time"),
    _case("sent in no time", _sent(seconds=0, nanos=-1), _TIME, "frames.sent_time"),
    _case("sent after all times", _sent(seconds=_AFTER_NANOSECONDS), _TIME, "frames.sent_time"),
    _case("complete before 1970", _complete(seconds=-1), _TIME, "frames.complete_time"),
    _case("complete after all times", _complete(seconds=2**62), _TIME, "frames.complete_time"),
    _case("closed after all times", _closed(seconds=2**62), _TIME, "close.sent_time"),
)
