"""Frames that are rejected one by one, while their stream goes on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from roomtape.v1 import ingest_pb2, media_pb2
from tests.integration.bad_input.content import FRAME_SAMPLES
from tests.integration.bad_input.publishing import frame

__all__ = ["BAD_FROM", "FRAME_CASES", "FrameCase"]

BAD_FROM = 6
"""Sequence of the first bad frame; good ones stand before and after."""

_DAY_SECONDS = 86_400
_GOOD = b"\x01\x00" * FRAME_SAMPLES

Change = Callable[[ingest_pb2.Frame], None]


@dataclass(frozen=True, slots=True)
class FrameCase:
    """`make` gives the bad frames in their order; the good ones go on after them."""

    name: str
    reason: str
    make: Callable[[], Sequence[ingest_pb2.Frame]]
    codec: media_pb2.Codec.ValueType = media_pb2.CODEC_PCM_S16LE


def _payloads(*payloads: bytes) -> Callable[[], Sequence[ingest_pb2.Frame]]:
    return lambda: [frame(BAD_FROM + index, payload) for index, payload in enumerate(payloads)]


def _changed(change: Change) -> Callable[[], Sequence[ingest_pb2.Frame]]:
    def make() -> Sequence[ingest_pb2.Frame]:
        made = frame(BAD_FROM, _GOOD)
        change(made)
        return [made]

    return make


def _media(seconds: int) -> Change:
    return lambda made: setattr(made.media_time, "seconds", made.media_time.seconds + seconds)


def _capture(seconds: int) -> Change:
    return lambda made: setattr(made.capture_time, "seconds", made.capture_time.seconds + seconds)


def _back_in_media(made: ingest_pb2.Frame) -> None:
    made.media_time.nanos = 1


_CORRUPT, _TIME = "CORRUPT_PAYLOAD", "FRAME_TIME_INVALID"
_OPUS, _AAC = media_pb2.CODEC_OPUS, media_pb2.CODEC_AAC

FRAME_CASES = (
    FrameCase("PCM of an odd size", _CORRUPT, _payloads(_GOOD[:-1])),
    FrameCase("PCM of one byte", _CORRUPT, _payloads(b"\x01")),
    FrameCase("many in a row", _CORRUPT, _payloads(*[_GOOD + b"\x01"] * 20)),
    FrameCase("PCM of more than a second", _CORRUPT, _payloads(b"\x01\x00" * 48_001)),
    FrameCase("media time runs back", _TIME, _changed(_back_in_media)),
    FrameCase("capture time runs back", _TIME, _changed(_capture(-10))),
    FrameCase("media time jumps", _TIME, _changed(_media(_DAY_SECONDS + 1))),
    FrameCase("capture time jumps", _TIME, _changed(_capture(_DAY_SECONDS + 1))),
    FrameCase("capture time jumps by years", _TIME, _changed(_capture(100 * 365 * _DAY_SECONDS))),
    # A packet of code 3 without frames, with more than 120 ms, cut off, and two frames of unequal size as equal ones.
    FrameCase("Opus without frames", _CORRUPT, _payloads(b"\xff\x00"), _OPUS),
    FrameCase("Opus of 1.26 s", _CORRUPT, _payloads(b"\xff\x3f" + bytes(63)), _OPUS),
    FrameCase("Opus that is cut off", _CORRUPT, _payloads(b"\xff"), _OPUS),
    FrameCase("Opus of two halves and a bit", _CORRUPT, _payloads(b"\xfd" + bytes(3)), _OPUS),
    FrameCase("Opus of one huge frame", _CORRUPT, _payloads(b"\xfc" + bytes(1276)), _OPUS),
    # Only the end of a unit, a unit of two channels, one that is cut off, and one with the header of another rate.
    FrameCase("AAC without sound", _CORRUPT, _payloads(b"\xe0\x00"), _AAC),
    FrameCase("AAC of a channel too many", _CORRUPT, _payloads(bytes.fromhex("211004608c1c")), _AAC),
    FrameCase("AAC that is cut off", _CORRUPT, _payloads(b"\x01\x18"), _AAC),
    FrameCase("ADTS of 44.1 kHz", _CORRUPT, _payloads(bytes.fromhex("fff15040017ffc01182007")), _AAC),
    FrameCase("many AAC units in a row that are noise", _CORRUPT, _payloads(*[b"\x1f" * 300] * 20), _AAC),
)
