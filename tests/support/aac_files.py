"""Whole files of AAC, as recordings leave them."""

from collections.abc import Sequence
from pathlib import Path

from roomtape_service.recording.containers.aac_files import finish_aac, finish_m4a, m4a_format
from roomtape_service.recording.containers.aac_writer import AacWriter
from roomtape_service.recording.vocabulary import Container
from tests.support.audio import Samples, ffmpeg_decode

__all__ = ["UNIT", "encoded_aac", "finish", "heard_of", "passed_aac"]

UNIT = 1024


def encoded_aac(
    path: Path, container: Container, signal: Samples, rate: int = 48_000, bitrate: int = 64_000
) -> bytes:
    """A signal, encoded."""
    channels = 1 if signal.ndim == 1 else signal.shape[1]
    writer = AacWriter(container, str(path), rate, channels, bitrate)
    writer.add_pcm(signal.tobytes())
    writer.end()
    size = writer.cut(len(signal))
    writer.file.close()
    finish(writer, path, size, len(signal), rate, channels, passes=False)
    return path.read_bytes()


def passed_aac(
    path: Path, container: Container, items: Sequence[bytes | int], rate: int = 48_000, channels: int = 1
) -> bytes:
    """Units as they came, with so many samples of silence where an item is a number."""
    writer = AacWriter(container, str(path), rate, channels, None)
    for item in items:
        if isinstance(item, int):
            writer.add_silence(item)
        else:
            writer.add_packet(item, UNIT, UNIT)
    samples = writer.ready
    size = writer.cut(samples)
    writer.file.close()
    finish(writer, path, size, samples, rate, channels, passes=True)
    return path.read_bytes()


def finish(
    writer: AacWriter, path: Path, size: int, samples: int, rate: int, channels: int, *, passes: bool
) -> int:
    """Finishes a file of the writer's kind; returns what it plays."""
    if writer.container is Container.M4A:
        return finish_m4a(str(path), size, samples, m4a_format(rate, channels, passes=passes))
    return finish_aac(str(path), size, samples, passes=passes)


def heard_of(
    path: Path, container: Container, samples: int, channels: int = 1, *, delay: int = UNIT
) -> Samples:
    """What ffmpeg decodes of a file that plays `samples`. Only M4A says itself how long it is, and its delay."""
    heard = ffmpeg_decode(path, channels)
    if container is Container.M4A:
        assert len(heard) == samples
        return heard
    assert len(heard) == delay + -(-samples // UNIT) * UNIT
    return heard[delay : delay + samples]
