"""MP3: decoded to the very samples that were recorded, and encoded again at the same bit rate; frames of encoders that
knew nothing of each other can't stand in one stream."""

from collections.abc import Iterable, Iterator

import av
import numpy as np

from roomtape_service.recording.containers.mp3 import MP3_DELAY, Mp3Writer, finish_mp3, frame_format
from roomtape_service.recording.containers.mp3_frames import frame_bytes
from roomtape_service.recording.joining.job import JoinJob
from roomtape_service.recording.joining.source import Source

__all__ = ["join_mp3"]

_HEADER_BYTES = 4
_FULL_SCALE = 32768
_SAMPLE_BYTES = 2
_PIECE_SECONDS = 1
_CUT_SAMPLES = 1 << 16


def join_mp3(job: JoinJob, sources: Iterable[Source]) -> int:
    """Writes the file; returns what it plays. Raises OSError, SourceDiffers."""
    writer = Mp3Writer(job.path, job.rate, job.channels, job.bitrate)
    written, cut = 0, 0
    for source in sources:
        while written < source.what.at:
            piece = min(_PIECE_SECONDS * job.rate, source.what.at - written)
            writer.add_silence(piece)
            written += piece
        for pcm in _pcm(source, job.channels):
            writer.add_pcm(pcm)
            written += len(pcm) // (_SAMPLE_BYTES * job.channels)
            if writer.ready - cut >= _CUT_SAMPLES:
                cut = writer.ready
                writer.cut(cut)
    writer.end()
    size = writer.cut(written)
    writer.file.close()
    return finish_mp3(job.path, size, written, frame_format(job.rate, job.channels, job.bitrate))


def _pcm(source: Source, channels: int) -> Iterator[bytes]:
    """What was recorded, and nothing of what decoders put before and encoders behind it."""
    decoder = av.CodecContext.create("mp3float", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    skip, left = MP3_DELAY * channels, source.what.samples * channels
    frames = _frames(source)
    # The first is the tag.
    next(frames, b"")
    for data in frames:
        try:
            decoded = decoder.decode(av.Packet(data))
        except av.FFmpegError as error:
            raise source.differs(f"it can't be decoded: {error}") from error
        for frame in decoded:
            planes = frame.to_ndarray()
            # Channels side by side, as PCM has them.
            wave = np.rint(planes.T.reshape(-1) * _FULL_SCALE)
            samples = np.clip(wave, -_FULL_SCALE, _FULL_SCALE - 1).astype("<i2")
            taken = samples[skip : skip + left]
            skip = max(0, skip - len(samples))
            left -= len(taken)
            if len(taken):
                yield taken.tobytes()
    if left:
        raise source.differs(f"it is {left // channels} samples shorter than what was recorded")


def _frames(source: Source) -> Iterator[bytes]:
    while source.left_bytes:
        header = source.read(_HEADER_BYTES)
        try:
            length = frame_bytes(header)
        except (ValueError, IndexError) as error:
            raise source.differs(f"it is no MP3 file: {error}") from error
        yield header + source.read(length - _HEADER_BYTES)
