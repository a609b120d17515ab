"""AAC-LC access units without decoding them: what they are wrapped in, and units of silence.

Sources: ISO/IEC 14496-3, 1.6.2.1 (AudioSpecificConfig), 4.4.2.1 (raw_data_block), 1.A.2 (ADTS).
"""

from typing import Final

from roomtape_service.recording.opus import CorruptPacketError

__all__ = [
    "AAC_RATES",
    "ADTS_HEADER_BYTES",
    "UNIT_SAMPLES",
    "access_unit",
    "adts_frame_bytes",
    "adts_header",
    "audio_specific_config",
    "silent_unit",
]

UNIT_SAMPLES: Final = 1024
"""Samples that a decoder puts out for each access unit."""

AAC_RATES: Final = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""Rates in Hz that tracks and files may have."""

ADTS_HEADER_BYTES: Final = 7
"""Without a CRC."""

_RATE_INDEX = {
    48_000: 3,
    44_100: 4,
    32_000: 5,
    24_000: 6,
    22_050: 7,
    16_000: 8,
    12_000: 9,
    11_025: 10,
    8_000: 11,
}
_RATE_OF = {index: rate for rate, index in _RATE_INDEX.items()}
_OBJECT_LC, _OBJECT_SBR = 2, 5
_SYNC_EXTENSION = 0x2B7
_ADTS_FRAME_BYTES_MAX = (1 << 13) - 1
_UNIT_BYTES_MAX = _ADTS_FRAME_BYTES_MAX - ADTS_HEADER_BYTES
_CRC_BYTES = 2

# The first three bits of a unit name its first element.
_SINGLE_CHANNEL, _CHANNEL_PAIR = 0, 1
_MAY_COME_FIRST = frozenset({_SINGLE_CHANNEL, _CHANNEL_PAIR, 4, 5, 6})
"""Of one channel or two, data, configuration, filling. Those of coupling and of low frequencies need others, and 7 is
the end."""

# One long window of the encoder's usual shape, in which no scale factor band is coded.
_SILENT_UNITS = {1: bytes.fromhex("01182007"), 2: bytes.fromhex("211004608c1c")}


def audio_specific_config(rate: int, channels: int) -> bytes:
    """What decoders must know before the first unit: AAC-LC, and that there is no SBR, which they would look for."""
    bits = _OBJECT_LC << 11 | _RATE_INDEX[rate] << 7 | channels << 3
    extension = _SYNC_EXTENSION << 5 | _OBJECT_SBR
    return bits.to_bytes(2, "big") + extension.to_bytes(2, "big") + b"\0"


def adts_header(rate: int, channels: int, unit_bytes: int) -> bytes:
    """The header before a unit in a stream."""
    length = ADTS_HEADER_BYTES + unit_bytes
    bits = 0xFFF << 44 | 1 << 40 | (_OBJECT_LC - 1) << 38 | _RATE_INDEX[rate] << 34 | channels << 30
    # The fullness of the buffer is not told.
    bits |= length << 13 | 0x7FF << 2
    return bits.to_bytes(ADTS_HEADER_BYTES, "big")


def adts_frame_bytes(header: bytes) -> int:
    """Length of the frame that begins with these bytes, which are at least six. Raises ValueError if none does."""
    length = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    if header[0] != 0xFF or header[1] & 0xF6 != 0xF0 or length < ADTS_HEADER_BYTES:
        raise ValueError(f"no ADTS header: {header[:ADTS_HEADER_BYTES].hex()}")
    return length


def access_unit(payload: bytes, rate: int, channels: int) -> bytes:
    """The unit of a payload, which may have an ADTS header. Raises CorruptPacketError for what is none of its track."""
    if payload[:1] == b"\xff":
        # No unit begins with its own end.
        payload = _without_header(payload, rate, channels)
    size = len(payload)
    if not 2 <= size <= _UNIT_BYTES_MAX:
        raise CorruptPacketError(f"an access unit of {size} bytes")
    first = payload[0] >> 5
    if first not in _MAY_COME_FIRST:
        raise CorruptPacketError("an access unit without sound")
    if first == (_CHANNEL_PAIR if channels == 1 else _SINGLE_CHANNEL):
        raise CorruptPacketError(f"an access unit of {3 - channels} channels on a track of {channels}")
    return payload


def _without_header(payload: bytes, rate: int, channels: int) -> bytes:
    if len(payload) < ADTS_HEADER_BYTES:
        raise CorruptPacketError("an ADTS header that is cut off")
    try:
        length = adts_frame_bytes(payload)
    except ValueError as error:
        raise CorruptPacketError(str(error)) from error
    if length != len(payload):
        raise CorruptPacketError(f"an ADTS frame of {length} bytes in {len(payload)}")
    if payload[2] >> 6 != _OBJECT_LC - 1:
        raise CorruptPacketError("ADTS of a profile that is not LC")
    told_rate = _RATE_OF.get(payload[2] >> 2 & 15)
    told_channels = (payload[2] & 1) << 2 | payload[3] >> 6
    if (told_rate, told_channels) != (rate, channels):
        raise CorruptPacketError(
            f"ADTS of {told_rate or 'another number of'} Hz and {told_channels} channels on a track of {rate} Hz and "
            f"{channels}"
        )
    if payload[6] & 3:
        raise CorruptPacketError("several access units in one ADTS frame")
    has_crc = not payload[1] & 1
    return payload[ADTS_HEADER_BYTES + (_CRC_BYTES if has_crc else 0) :]


def silent_unit(channels: int) -> bytes:
    """A unit that decodes to silence, whatever is around it."""
    return _SILENT_UNITS[channels]
