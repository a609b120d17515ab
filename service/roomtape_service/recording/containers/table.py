"""Which codec goes into which container, and what to expect of the pair. What is not here is refused by
name."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from roomtape_service.recording.protocol import Container, TrackCodec

__all__ = [
    "EXTENSIONS",
    "MIX_CODEC",
    "PACKET_CODECS",
    "PAIRS",
    "Method",
    "Pair",
    "pair",
    "passes_packets",
]


class Method(StrEnum):
    """How media gets into a container."""

    PASS = "PASS"
    """As it came."""
    DECODE = "DECODE"
    """Decoded."""
    ENCODE = "ENCODE"
    """Decoded and encoded again."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What is known of a codec in a container; tests measure it."""

    method: Method
    live_upload: bool
    """Whether parts can go to the store while the file grows. Bytes that are patched at the end lie in the
    first part, or (the last page of Ogg) in the last."""
    lost_at_kill_ms: int
    """What a file lacks at most when its worker is killed, counted from when the media came."""
    join_error_samples: int
    """By how much joined segments may differ in length from the whole."""


MIX_CODEC = TrackCodec.PCM_S16LE
"""What a mix counts as: PCM, 48 kHz, mono."""

PAIRS: Mapping[tuple[TrackCodec, Container], Pair] = {
    (TrackCodec.OPUS, Container.MP3): Pair(Method.ENCODE, True, 1000, 0),
    (TrackCodec.OPUS, Container.OGG): Pair(Method.PASS, True, 750, 120),
    (TrackCodec.OPUS, Container.WAV): Pair(Method.DECODE, True, 750, 0),
    (TrackCodec.OPUS, Container.AAC): Pair(Method.ENCODE, True, 1000, 0),
    (TrackCodec.OPUS, Container.M4A): Pair(Method.ENCODE, True, 1000, 0),
    (TrackCodec.PCM_S16LE, Container.MP3): Pair(Method.ENCODE, True, 1000, 0),
    (TrackCodec.PCM_S16LE, Container.WAV): Pair(Method.PASS, True, 750, 0),
    (TrackCodec.PCM_S16LE, Container.AAC): Pair(Method.ENCODE, True, 1000, 0),
    (TrackCodec.PCM_S16LE, Container.M4A): Pair(Method.ENCODE, True, 1000, 0),
    (TrackCodec.AAC, Container.MP3): Pair(Method.ENCODE, True, 1000, 0),
    (TrackCodec.AAC, Container.WAV): Pair(Method.DECODE, True, 750, 0),
    (TrackCodec.AAC, Container.AAC): Pair(Method.PASS, True, 750, 1023),
    (TrackCodec.AAC, Container.M4A): Pair(Method.PASS, True, 750, 0),
    (TrackCodec.PCMU, Container.MP3): Pair(Method.ENCODE, True, 1000, 0),
    (TrackCodec.PCMU, Container.WAV): Pair(Method.DECODE, True, 750, 0),
    (TrackCodec.PCMU, Container.AAC): Pair(Method.ENCODE, True, 1000, 0),
    (TrackCodec.PCMU, Container.M4A): Pair(Method.ENCODE, True, 1000, 0),
    (TrackCodec.PCMA, Container.MP3): Pair(Method.ENCODE, True, 1000, 0),
    (TrackCodec.PCMA, Container.WAV): Pair(Method.DECODE, True, 750, 0),
    (TrackCodec.PCMA, Container.AAC): Pair(Method.ENCODE, True, 1000, 0),
    (TrackCodec.PCMA, Container.M4A): Pair(Method.ENCODE, True, 1000, 0),
}

PACKET_CODECS = frozenset({TrackCodec.OPUS, TrackCodec.AAC})
"""Codecs whose payloads are packets, which can't be cut; those of the others are samples."""

EXTENSIONS: Mapping[Container, str] = {
    Container.MP3: "mp3",
    Container.OGG: "ogg",
    Container.WAV: "wav",
    Container.AAC: "aac",
    Container.M4A: "m4a",
}


def pair(codec: TrackCodec, container: Container) -> Pair | None:
    """The row of the table; None for a pair that is refused."""
    return PAIRS.get((codec, container))


def passes_packets(codec: TrackCodec, container: Container) -> bool:
    """Whether the packets of a pair of the table go into the file as they came."""
    return codec in PACKET_CODECS and PAIRS[codec, container].method is Method.PASS
