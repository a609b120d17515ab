"""Opus packets: what is in them is known without decoding, and decoders agree."""

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomtape_service.recording.decoding import OpusDecoder, is_silent, samples_in
from roomtape_service.recording.opus import (
    CorruptPacketError,
    can_join,
    join_packets,
    packet_samples,
    silence_packets,
)
from roomtape_service.recording.protocol import TrackCodec
from tests.support.audio import noise, opus_decode, opus_packets, tone


@pytest.mark.parametrize("frame_ms", [5, 10, 20, 40, 60])
@pytest.mark.parametrize("bitrate", [8_000, 16_000, 64_000])
def test_durations_are_those_of_the_encoder(frame_ms: int, bitrate: int) -> None:
    packets = opus_packets(noise(0.5), bitrate=bitrate, frame_ms=frame_ms)
    assert {packet_samples(packet) for packet in packets} == {48 * frame_ms}


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\xf8" + bytes(1276),  # a frame that is too long
        b"\xf9" + bytes(3),  # two equal frames in an odd number of bytes
        b"\xfa",  # the length of the first of two frames is missing
        b"\xfa\xfc",  # the second byte of a length is missing
        b"\xfa\x05abc",  # the first frame is longer than the packet
        b"\xfb",  # the count is missing
        b"\xfb\x00",  # no frames
        b"\xfb\x07" + bytes(7),  # 140 ms
        b"\xfb\x02abc",  # equal frames that do not fit
        b"\xfb\x42",  # the padding's length is missing
        b"\xfb\x42\x09ab",  # more padding than packet
        b"\xfb\x82\x09ab",  # the first frame is longer than the packet
        bytes(70_000),
    ],
)
def test_malformed_packets_are_corrupt(packet: bytes) -> None:
    with pytest.raises(CorruptPacketError):
        packet_samples(packet)


@given(st.binary(min_size=1, max_size=80))
def test_what_is_sound_decodes_to_its_duration(packet: bytes) -> None:
    try:
        samples = packet_samples(packet)
    except CorruptPacketError:
        return
    decoded = OpusDecoder(1).decode([packet], [samples])[0]
    assert decoded is None or len(decoded) == 2 * samples


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("samples", [119, 120, 960, 961 + 480 + 240 + 120, 48_000])
def test_silence_is_silent_and_as_long_as_can_be(channels: int, samples: int) -> None:
    packets = silence_packets(samples, channels)
    total = sum(duration for _, duration in packets)
    assert 0 <= samples - total < 120
    if packets:
        decoded = opus_decode([packet for packet, _ in packets], channels)
        assert len(decoded) == total
        assert not decoded.any()


def test_joined_packets_decode_to_the_same() -> None:
    packets = [packet for packet in opus_packets(noise(1.0)) if can_join(packet)]
    first = packets[0][0]
    packets = [packet for packet in packets if packet[0] == first][:6]
    assert packet_samples(join_packets(packets)) == 6 * 960
    assert np.array_equal(opus_decode([join_packets(packets)]), opus_decode(packets))


def test_long_frames_join_too() -> None:
    packets = [b"\xf8" + bytes([index]) * size for index, size in enumerate((251, 252, 300, 1275))]
    with pytest.raises(av.FFmpegError):
        opus_decode([b"\xfb\x84"])
    assert packet_samples(join_packets(packets)) == 4 * 960


@pytest.mark.parametrize("bitrate", [6_000, 12_000, 24_000, 64_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_track_decodes_to_what_libopus_puts_out(bitrate: int, channels: int) -> None:
    signal = tone(440, 1.0, channels=channels)
    packets = opus_packets(signal, bitrate=bitrate)
    samples = [packet_samples(packet) for packet in packets]
    decoded = OpusDecoder(channels).decode(packets, samples)
    ours = np.frombuffer(b"".join(each or b"" for each in decoded), np.int16).astype(np.float64)
    theirs = opus_decode(packets, channels).reshape(-1).astype(np.float64)
    assert len(ours) == len(theirs)
    settled = slice(9600, len(ours) - 9600)
    assert np.std(ours[settled] - theirs[settled]) < 0.2 * np.std(theirs[settled])
    assert abs(np.std(ours[settled]) / np.std(theirs[settled]) - 1) < 0.05


def test_stereo_packets_of_a_mono_track_are_mixed_down() -> None:
    packets = opus_packets(tone(440, 0.5, channels=2), bitrate=96_000)
    decoded = OpusDecoder(1).decode(packets, [960] * len(packets))
    assert [len(each or b"") for each in decoded] == [1920] * len(packets)


def test_a_corrupt_packet_among_sound_ones_stays_alone() -> None:
    packets = opus_packets(noise(0.4))
    broken = [*packets[:5], b"\xfb\x85" + b"\x01" * 5 + b"\xff" * 3, *packets[5:]]
    samples = [packet_samples(packet) for packet in broken]
    decoded = OpusDecoder(1).decode(broken, samples)
    assert len(decoded) == len(broken)
    assert all(each is not None and len(each) == 1920 for index, each in enumerate(decoded) if index != 5)


def test_pcm_is_counted_in_whole_samples() -> None:
    assert samples_in(TrackCodec.PCM_S16LE, bytes(8), 48_000, 2) == 2
    for size in (0, 1, 3, 6):
        with pytest.raises(CorruptPacketError):
            samples_in(TrackCodec.PCM_S16LE, bytes(size), 48_000, 2)


def test_silence_is_what_nobody_hears() -> None:
    assert is_silent(bytes(100))
    assert is_silent(b"")
    assert is_silent(np.full(10, 20, np.int16).tobytes())
    assert not is_silent(np.full(10, -400, np.int16).tobytes())
