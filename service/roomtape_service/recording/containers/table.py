"""Which codec goes into which container, and what to expect of the pair. What is not here is refused by
name."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from roomtape_service.recording.protocol import Container, TrackCodec

__all__ = ["EXTENSIONS", "MIX_CODEC", "PAIRS", "Method", "Pair", "pair"]


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
    (TrackCodec.PCM_S16LE, Container.MP3): Pair(Method.ENCODE, True, 1000, 0),
    (TrackCodec.PCM_S16LE, Container.WAV): Pair(Method.PASS, True, 750, 0),
}

EXTENSIONS: Mapping[Container, str] = {Container.MP3: "mp3", Container.OGG: "ogg", Container.WAV: "wav"}


def pair(codec: TrackCodec, container: Container) -> Pair | None:
    """The row of the table; None for a pair that is refused."""
    return PAIRS.get((codec, container))
