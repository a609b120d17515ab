"""What node and worker say to each other survives the way, in whatever pieces it comes."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomtape_service.recording import protocol
from roomtape_service.recording.plain import PlainDataError, from_plain, to_plain

RESUME = {"session/mic": protocol.Resume(5, -6)}
MESSAGES: list[protocol.Message] = [
    protocol.RoomOpen(1, protocol.RoomClock.MEDIA, 2),
    protocol.TrackOpen(1, 2, "ü", "s/t", protocol.TrackCodec.OPUS, 48_000, 2, offset_ns=None, sequence=0),
    protocol.RecordingStart(
        recording_id="r",
        task_id="t",
        room=1,
        kind=protocol.RecordingKind.MIXED,
        containers=(protocol.Container.MP3, protocol.Container.WAV),
        segment_ns=1,
        segment_bytes=2,
        bitrate=3,
        next_segment=4,
        mute_ends_segment=True,
        break_wait_ns=5,
        from_ns=6,
        resume=RESUME,
        position_ns=7,
        expected=("a/b",),
    ),
    protocol.Frames(3, -4, b"\x00batch"),
    protocol.RecordingTracks("r", (1, 2)),
    protocol.Safe({1: 2, 3: 4}),
    protocol.SegmentCompleted(
        *("r", 0, 1, 2, 48_000, 1, 3, False),
        files=(protocol.CompletedFile(protocol.Container.MP3, "/p", 1, "ab", 1105, 3),),
        statistics=protocol.FrameStatistics(1, 2, 3, 4, 5),
        resume=RESUME,
    ),
    protocol.Shutdown(),
]


def encoded(message: protocol.Message) -> bytes:
    if isinstance(message, protocol.Frames):
        return protocol.frames_message(message.track, message.arrival_ns, message.batch)
    return protocol.encode(message)


@given(st.lists(st.integers(0, 3000), max_size=20))
def test_messages_come_out_whole_however_they_are_cut(cuts: list[int]) -> None:
    stream = b"".join(map(encoded, MESSAGES))
    edges = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    decoder = protocol.MessageDecoder()
    received = [
        message for start, end in itertools.pairwise(edges) for message in decoder.feed(stream[start:end])
    ]
    assert received == MESSAGES


@pytest.mark.parametrize(
    "junk",
    [
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x02X{",
        b"\x00\x00\x00\x03C{}",
        b"\x00\x00\x00\x0fC" + b'{"op":"nope"}'.ljust(14),
        b"\x00\x00\x00\x05C[1]]",
        b"\x00\x00\x00\x02Fx",
    ],
)
def test_junk_is_an_error(junk: bytes) -> None:
    with pytest.raises(protocol.ProtocolError):
        list(protocol.MessageDecoder().feed(junk))


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"track": "1", "muted": True, "at_ns": 1}, "TrackMute.track"),
        ({"track": True, "muted": True, "at_ns": 1}, "TrackMute.track"),
        ({"track": 1, "muted": True}, "at_ns"),
        ({"track": 1, "muted": True, "at_ns": 1, "more": 2}, "more"),
        ([], "TrackMute"),
    ],
)
def test_what_does_not_fit_is_named(data: object, where: str) -> None:
    with pytest.raises(PlainDataError, match=where):
        from_plain(protocol.TrackMute, data)


def test_plain_data_survives() -> None:
    for message in MESSAGES:
        if not isinstance(message, protocol.Frames):
            assert from_plain(type(message), to_plain(message)) == message


async def test_a_worker_is_read_until_it_closes() -> None:
    reader = asyncio.StreamReader()
    hello = protocol.Hello(0, "g", 1, "/spool")
    reader.feed_data(protocol.encode(hello))
    reader.feed_eof()
    assert await protocol.read_worker_op(reader) == hello
    assert await protocol.read_worker_op(reader) is None


async def test_a_worker_that_breaks_off_is_an_error() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(protocol.encode(protocol.Bye())[:-1])
    reader.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError):
        await protocol.read_worker_op(reader)
