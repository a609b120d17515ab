"""Opus packets without decoding them: structure and duration (RFC 6716, 3.1 to 3.4), and packets of
silence."""

from collections.abc import Sequence
from typing import Final

__all__ = ["OPUS_RATE", "SILENCE_UNIT_SAMPLES", "CorruptPacketError", "packet_samples", "silence_packets"]

OPUS_RATE: Final = 48_000
"""Opus counts time in samples of 48 kHz whatever it carries."""

_FRAME_BYTES_MAX = 1275
_PACKET_BYTES_MAX = 65_024
"""What one Ogg page holds; without padding a packet has at most 61,298."""
PACKET_SAMPLES_MAX: Final = 5760
"""120 ms."""

# Samples of a frame by the five bits of `config`: SILK 10, 20, 40, 60 ms; hybrid 10, 20 ms; CELT 2.5, 5, 10,
# 20 ms.
_SILK, _HYBRID, _CELT = (480, 960, 1920, 2880), (480, 960), (120, 240, 480, 960)
_CONFIG_SAMPLES = _SILK * 3 + _HYBRID * 2 + _CELT * 4
_FRAME_SAMPLES = tuple(_CONFIG_SAMPLES[toc >> 3] for toc in range(256))

STEREO_BIT: Final = 0x04
"""In a packet's first byte."""

SILENCE_UNIT_SAMPLES: Final = 120
"""The shortest packet: 2.5 ms."""

# CELT, full band, one frame of 20, 10, 5 and 2.5 ms, whose range coder says "silence" at once; bit 2 is
# stereo.
_SILENCE_FRAME = b"\xff\xfe"
_SILENCE_CONFIGS = ((960, 31), (480, 30), (240, 29), (120, 28))


class CorruptPacketError(ValueError):
    """Bytes that no Opus packet has."""


def packet_samples(packet: bytes) -> int:
    """Duration in samples of 48 kHz. Raises CorruptPacketError for what RFC 6716, 3.4 calls malformed."""
    size = len(packet)
    if 0 < size <= _FRAME_BYTES_MAX and not packet[0] & 3:
        # One frame, as nearly all packets are.
        return _FRAME_SAMPLES[packet[0]]
    if not size:
        raise CorruptPacketError("an empty packet")
    if size > _PACKET_BYTES_MAX:
        raise CorruptPacketError(f"a packet of {size} bytes")
    toc = packet[0]
    samples = _FRAME_SAMPLES[toc]
    code = toc & 3
    if code == 0:
        if size - 1 > _FRAME_BYTES_MAX:
            raise CorruptPacketError(f"a frame of {size - 1} bytes")
        return samples
    if code == 1:
        if size % 2 == 0 or (size - 1) // 2 > _FRAME_BYTES_MAX:
            raise CorruptPacketError(f"two equal frames in {size - 1} bytes")
        return 2 * samples
    if code == 2:
        first, at = _frame_length(packet, 1)
        if not 0 <= size - at - first <= _FRAME_BYTES_MAX:
            raise CorruptPacketError(f"two frames of {first} and {size - at - first} bytes")
        return 2 * samples
    return _check_counted(packet, samples)


def _frame_length(packet: bytes, at: int) -> tuple[int, int]:
    """A frame's length (3.2.1) and where what follows begins."""
    if at >= len(packet):
        raise CorruptPacketError("a frame length is cut off")
    first = packet[at]
    if first < 252:
        return first, at + 1
    if at + 1 >= len(packet):
        raise CorruptPacketError("a frame length is cut off")
    return packet[at + 1] * 4 + first, at + 2


def _check_counted(packet: bytes, frame_samples: int) -> int:
    size = len(packet)
    if size < 2:
        raise CorruptPacketError("the frame count is cut off")
    count = packet[1] & 0x3F
    if not count or count * frame_samples > PACKET_SAMPLES_MAX:
        raise CorruptPacketError(f"{count} frames of {frame_samples} samples")
    at, end = 2, size
    if packet[1] & 0x40:
        while True:
            if at >= size:
                raise CorruptPacketError("the padding length is cut off")
            length = packet[at]
            at += 1
            end -= 254 if length == 255 else length
            if length != 255:
                break
    if packet[1] & 0x80:
        for _ in range(count - 1):
            length, at = _frame_length(packet, at)
            end -= length
        if not 0 <= end - at <= _FRAME_BYTES_MAX:
            raise CorruptPacketError(f"{count} frames that do not fill {size} bytes")
        return count * frame_samples
    if end < at or (end - at) % count or (end - at) // count > _FRAME_BYTES_MAX:
        raise CorruptPacketError(f"{count} equal frames in {end - at} bytes")
    return count * frame_samples


def can_join(packet: bytes) -> bool:
    """Whether a packet, sound by `packet_samples`, has one frame that can go into a packet with others."""
    return packet[0] & 3 == 0 and len(packet) > 1


def join_packets(packets: Sequence[bytes]) -> bytes:
    """One packet with the frames of several (3.2.5), which all have the same first byte and `can_join`.

    A decoder puts out the same for it as for them; it must not be longer than 120 ms.
    """
    if len(packets) == 1:
        return packets[0]
    head = bytearray((packets[0][0] | 3, 0x80 | len(packets)))
    for packet in packets[:-1]:
        size = len(packet) - 1
        if size < 252:
            head.append(size)
        else:
            head += bytes((252 + (size & 3), (size - 252) >> 2))
    return b"".join((head, *[packet[1:] for packet in packets]))


def silence_packets(samples: int, channels: int) -> list[tuple[bytes, int]]:
    """Packets of silence with their durations that fill `samples` to within 2.5 ms, never more."""
    packets: list[tuple[bytes, int]] = []
    for duration, config in _SILENCE_CONFIGS:
        count, samples = divmod(samples, duration)
        toc = config << 3 | (STEREO_BIT if channels == 2 else 0)
        packets.extend([(bytes((toc,)) + _SILENCE_FRAME, duration)] * count)
    return packets
