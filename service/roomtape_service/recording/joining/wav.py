"""WAV, sample for sample; zeros between."""

from collections.abc import Iterable

from roomtape_service.recording.containers.wav import HEADER_BYTES, WavWriter, finish_wav
from roomtape_service.recording.joining.job import JoinJob
from roomtape_service.recording.joining.source import Source

__all__ = ["join_wav"]

_SAMPLE_BYTES = 2
_PIECE_SAMPLES = 1 << 18


def join_wav(job: JoinJob, sources: Iterable[Source]) -> int:
    """Writes the file; returns what it plays. Raises OSError, SourceDiffers."""
    block = _SAMPLE_BYTES * job.channels
    writer = WavWriter(job.path, job.rate, job.channels)
    written = 0
    for source in sources:
        written += _silence(writer, written, source.what.at)
        head = source.read(HEADER_BYTES)
        if head[:4] != b"RIFF" or source.left_bytes != source.what.samples * block:
            raise source.differs("it is no WAV file of the recorded length")
        while source.left_bytes:
            pcm = source.read()
            writer.add_pcm(pcm)
            writer.cut(0)
        written += source.what.samples
    size = writer.cut(written)
    writer.file.close()
    return finish_wav(job.path, size, written, job.rate, job.channels)


def _silence(writer: WavWriter, start: int, end: int) -> int:
    for at in range(start, end, _PIECE_SAMPLES):
        writer.add_silence(min(_PIECE_SAMPLES, end - at))
        writer.cut(0)
    return end - start
