"""Layer III frames as bytes: headers, frames of silence, and the Info/LAME tag.

Sources: ISO/IEC 11172-3 2.4.1 and 13818-3 (MPEG-2), the MPEG-2.5 extension, and Gabriel Bouvigne's
description of the LAME tag (revision 1), which decoders follow for gapless playing.
"""

import functools
import struct
from dataclasses import dataclass
from typing import Final

__all__ = [
    "DECODER_DELAY",
    "ENCODER_DELAY",
    "FrameFormat",
    "frame_bytes",
    "info_frame",
    "nearest_bitrate",
    "silent_frame",
]

ENCODER_DELAY: Final = 576
"""Samples of silence that LAME's encoder puts before its input."""
DECODER_DELAY: Final = 529
"""Samples that every decoder's filter bank puts before them."""

_MPEG1, _MPEG2, _MPEG25 = 3, 2, 0
_LAYER_3 = 1
_RATES = {
    44_100: (_MPEG1, 0),
    48_000: (_MPEG1, 1),
    32_000: (_MPEG1, 2),
    22_050: (_MPEG2, 0),
    24_000: (_MPEG2, 1),
    16_000: (_MPEG2, 2),
    11_025: (_MPEG25, 0),
    12_000: (_MPEG25, 1),
    8_000: (_MPEG25, 2),
}
_RATE_OF = {place: rate for rate, place in _RATES.items()}
_KBPS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_KBPS = {_MPEG1: _KBPS_1, _MPEG2: _KBPS_2, _MPEG25: _KBPS_2}
_KBPS_MAX = {_MPEG1: 320, _MPEG2: 160, _MPEG25: 64}
_MODE_JOINT_STEREO, _MODE_MONO = 1, 3
_ORIGINAL = 0x04

_TAG_FIELDS = 0x0F  # frames, bytes, table of contents, quality
_TOC = bytes(index * 256 // 100 for index in range(100))
_ENCODER_NAME = b"LAME3.100"
_METHOD_CBR = 0x01
# Name, method, low-pass, peak, two gains, flags, bit rate, delays, misc, gain, preset, length, CRC of the
# music (not given: it would need every byte again); the CRC of the tag follows.
_LAME_TAG = struct.Struct(">9sBBIHHBB3sBBHIH")
_CRC_BYTES = 2


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """What all frames of a file have in common; `kbps` is one that the rate's version has."""

    rate: int
    channels: int
    kbps: int

    @property
    def samples(self) -> int:
        """Samples of a frame."""
        return 1152 if _RATES[self.rate][0] == _MPEG1 else 576

    @property
    def side_bytes(self) -> int:
        """Bytes of the side information that follows the header."""
        if _RATES[self.rate][0] == _MPEG1:
            return 17 if self.channels == 1 else 32
        return 9 if self.channels == 1 else 17


def nearest_bitrate(rate: int, bits_per_second: int) -> int:
    """The highest bit rate in kbit/s that frames of this rate can have, not above the one asked for; or the
    lowest."""
    version = _RATES[rate][0]
    allowed = [kbps for kbps in _KBPS[version][1:] if kbps <= _KBPS_MAX[version]]
    return max((kbps for kbps in allowed if kbps * 1000 <= bits_per_second), default=allowed[0])


def frame_bytes(header: bytes) -> int:
    """Length of the frame that begins with these four bytes. Raises ValueError if no frame does."""
    return _frame_bytes(header[1], header[2]) if header[0] == 0xFF else _refuse(header[0])


@functools.cache
def _frame_bytes(second: int, third: int) -> int:
    version, layer = second >> 3 & 3, second >> 1 & 3
    rate = _RATE_OF.get((version, third >> 2 & 3))
    kbps_index = third >> 4
    if second & 0xE0 != 0xE0 or layer != _LAYER_3 or rate is None or kbps_index in (0, 15):
        return _refuse(second)
    kbps = _KBPS[version][kbps_index]
    return (144 if version == _MPEG1 else 72) * 1000 * kbps // rate + (third >> 1 & 1)


def _refuse(byte: int) -> int:
    raise ValueError(f"no frame header of layer III: {byte:#x}")


def _header(form: FrameFormat, kbps: int) -> bytes:
    version, rate_index = _RATES[form.rate]
    mode = _MODE_MONO if form.channels == 1 else _MODE_JOINT_STEREO
    second = 0xE0 | version << 3 | _LAYER_3 << 1 | 1
    third = _KBPS[version].index(kbps) << 4 | rate_index << 2
    return bytes((0xFF, second, third, mode << 6 | _ORIGINAL))


def silent_frame(form: FrameFormat) -> bytes:
    """A frame that needs no other to be decoded, to silence: its side information says that no bits
    follow."""
    header = _header(form, form.kbps)
    return header.ljust(frame_bytes(header), b"\0")


def info_frame(form: FrameFormat, frames: int, following_bytes: int, padding: int) -> bytes:
    """The frame before all others, which says how many they are and how much of them is not sound.

    Its length depends on the format alone. `padding` is at most 4095 samples; all counts are 0 while a file
    grows.
    """
    body_bytes = 4 + form.side_bytes + 8 + 4 + 4 + len(_TOC) + 4 + _LAME_TAG.size + _CRC_BYTES
    allowed = (_header(form, kbps) for kbps in _KBPS[_RATES[form.rate][0]] if kbps >= form.kbps)
    header = next(each for each in allowed if frame_bytes(each) >= body_bytes)
    total = frame_bytes(header)
    file_bytes = total + following_bytes
    tag = b"Info" + struct.pack(">III", _TAG_FIELDS, frames, file_bytes) + _TOC + struct.pack(">I", 50)
    lame = _LAME_TAG.pack(
        *(_ENCODER_NAME, _METHOD_CBR, 0, 0, 0, 0, 0, min(form.kbps, 255)),
        *((ENCODER_DELAY << 12 | padding).to_bytes(3, "big"), 0, 0, 0, file_bytes, 0),
    )
    frame = header + bytes(form.side_bytes) + tag + lame
    return (frame + _crc16(frame).to_bytes(_CRC_BYTES, "big")).ljust(total, b"\0")


def _crc16(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc
