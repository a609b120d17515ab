"""How long a frame lasts, in samples."""

from roomtape.client.clock import NANOSECONDS
from roomtape.v1 import ingest_pb2, media_pb2

__all__ = ["AAC_SAMPLES", "OPUS_RATE_HZ", "frame_samples", "opus_samples", "sample_rate_hz", "samples_ns"]

OPUS_RATE_HZ = 48_000
_G711_RATE_HZ = 8_000
AAC_SAMPLES = 1_024
_PCM_SAMPLE_BYTES, _G711_SAMPLE_BYTES = 2, 1
_G711 = frozenset({media_pb2.CODEC_PCMU, media_pb2.CODEC_PCMA})

# RFC 6716 §3.1: samples of one frame at 48 kHz for each configuration of the table-of-contents byte.
_SILK = (480, 960, 1920, 2880)
_HYBRID = (480, 960)
_CELT = (120, 240, 480, 960)
_OPUS_FRAME_SAMPLES = _SILK * 3 + _HYBRID * 2 + _CELT * 4

# §3.2: codes 0 to 2 say how many frames a packet has, code 3 leaves it to the next byte.
_OPUS_FRAME_COUNTS = (1, 2, 2)
_COUNT_IN_NEXT_BYTE = 3
_COUNT_MASK = 0x3F


def opus_samples(packet: bytes) -> int:
    """The samples at 48 kHz that an Opus packet plays; raises ValueError when it is none."""
    if not packet:
        raise ValueError("an Opus packet has at least one byte")
    samples = _OPUS_FRAME_SAMPLES[packet[0] >> 3]
    code = packet[0] & 3
    if code != _COUNT_IN_NEXT_BYTE:
        return samples * _OPUS_FRAME_COUNTS[code]
    count = packet[1] & _COUNT_MASK if len(packet) > 1 else 0
    if not count:
        raise ValueError("an Opus packet of code 3 says how many frames it has")
    return samples * count


def sample_rate_hz(offer: ingest_pb2.TrackOffer) -> int:
    """The track's own sample clock."""
    if offer.codec == media_pb2.CODEC_OPUS:
        return OPUS_RATE_HZ
    return _G711_RATE_HZ if offer.codec in _G711 else offer.sample_rate_hz


def frame_samples(offer: ingest_pb2.TrackOffer, payload: bytes) -> int:
    """The samples for each channel that a payload of the track plays; raises ValueError when it can't be one."""
    if offer.codec == media_pb2.CODEC_OPUS:
        return opus_samples(payload)
    if offer.codec == media_pb2.CODEC_AAC:
        if not payload:
            raise ValueError("an AAC unit has at least one byte")
        return AAC_SAMPLES
    channels = max(1, offer.channels)
    sample_bytes = _G711_SAMPLE_BYTES if offer.codec in _G711 else _PCM_SAMPLE_BYTES
    samples, rest = divmod(len(payload), sample_bytes * channels)
    if rest or not samples:
        raise ValueError(f"{len(payload)} bytes are no whole samples of {channels} channels")
    return samples


def samples_ns(samples: int, rate_hz: int) -> int:
    """The nanoseconds of `samples`, rounded down."""
    return samples * NANOSECONDS // rate_hz
