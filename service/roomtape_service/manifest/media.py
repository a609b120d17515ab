"""What a media file plays, by decoding all of it."""

from dataclasses import dataclass
from pathlib import Path

import av

from roomtape_service.manifest.model import File

__all__ = ["Media", "MediaError", "compare", "measure"]

_CODECS = {"OPUS": frozenset({"opus", "libopus"}), "PCM_S16LE": frozenset({"pcm_s16le"})}
_CODECS |= {"MP3": frozenset({"mp3", "mp3float"}), "AAC": frozenset({"aac", "aac_fixed"})}
_UNIT_SAMPLES = 1024
"""Of AAC, whose streams tell neither the encoder's delay nor where in the last unit they end."""
_FORMATS = {"AAC": "aac"}
"""What FFmpeg does not always know by its beginning: of ADTS it takes three units, and a segment may have one."""


class MediaError(Exception):
    """A file that can't be decoded; the text says why."""


@dataclass(frozen=True, slots=True)
class Media:
    """What came out of a decoder that keeps to the file's own tag: delay and padding of its encoder are cut off."""

    codec: str
    sample_rate_hz: int
    channels: int
    sample_count: int


def measure(path: Path, container: str = "") -> Media:
    """Decodes the file's audio from start to end. `container` is the manifest's name of it. Raises MediaError."""
    try:
        with av.open(str(path), "r", format=_FORMATS.get(container)) as opened:
            if not opened.streams.audio:
                raise MediaError("it has no audio")
            stream = opened.streams.audio[0]
            context = stream.codec_context
            samples = sum(_played_samples(opened.format.name, frame) for frame in opened.decode(stream))
            return Media(context.name, context.sample_rate, context.channels, samples)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"it can't be decoded: {error}") from error


def _played_samples(container: str, frame: av.AudioFrame) -> int:
    """In MP4, whose times are samples, a frame may be longer than it is to be played."""
    return frame.duration if "mp4" in container and frame.duration else frame.samples


def compare(file: File, media: Media) -> list[str]:
    """How what was decoded differs from what the manifest says; nothing if it does not."""
    problems = []
    known = _CODECS.get(file.codec)
    if known is not None and media.codec not in known:
        problems.append(f"it holds {media.codec}, not {file.codec}")
    for name, found, said in (
        ("samples a second", media.sample_rate_hz, file.sample_rate_hz),
        ("channels", media.channels, file.channels),
        ("samples", media.sample_count, _decoded_samples(file)),
    ):
        if found != said:
            problems.append(f"it has {found} {name}, not {said}")
    return problems


def _decoded_samples(file: File) -> int:
    if file.container != "AAC":
        return file.sample_count
    return file.encoder_delay_samples + -(-file.sample_count // _UNIT_SAMPLES) * _UNIT_SAMPLES
