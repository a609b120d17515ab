"""Audio files as samples: mono, 48 kHz, full scale is 1."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from roomtape.client.media_file import MediaFile, MediaFrame

__all__ = ["RATE_HZ", "Samples", "clip_packets", "decode_clip", "decode_file", "file_packets"]

RATE_HZ = 48_000

Samples = npt.NDArray[np.float32]

_WHOLE_FILE_NS = 2**62


def decode_file(path: Path) -> Samples:
    """What a player plays of the file: delay and padding of its encoder are cut off as its tags say.

    Raises OSError or av.FFmpegError for what is no audio file.
    """
    with av.open(str(path), "r") as container:
        if not container.streams.audio:
            raise OSError(f"{path} has no audio")
        return _mono(container.decode(container.streams.audio[0]))


def decode_clip(path: Path) -> Samples:
    """What a listener hears of an Opus file that was published packet by packet: from where its sound begins."""
    frames = _clip_frames(path)
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate = RATE_HZ
    decoder.layout = "mono"
    decoded = _mono(itertools.chain.from_iterable(decoder.decode(av.Packet(each.payload)) for each in frames))
    return decoded[round(-frames[0].heard_ns * RATE_HZ / 1_000_000_000) :]


def clip_packets(path: Path) -> list[bytes]:
    """The packets that are published of an Opus file."""
    return [frame.payload for frame in _clip_frames(path)]


def _clip_frames(path: Path) -> list[MediaFrame]:
    source = MediaFile(path)
    try:
        return source.read(_WHOLE_FILE_NS)
    finally:
        source.close()


def file_packets(path: Path) -> list[bytes]:
    """The packets of a file's audio as they are stored."""
    with av.open(str(path), "r") as container:
        return [data for packet in container.demux(container.streams.audio[0]) if (data := bytes(packet))]


def _mono(frames: Iterable[av.AudioFrame]) -> Samples:
    pieces = [frame.to_ndarray().reshape(-1) for frame in _resampled(frames)]
    return np.concatenate(pieces, dtype=np.float32) if pieces else np.zeros(0, np.float32)


def _resampled(frames: Iterable[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
    for frame in frames:
        frame.pts = None
        yield from resampler.resample(frame)
    yield from resampler.resample(None)
