"""Payloads to 16-bit PCM."""

import av
import numpy as np
import numpy.typing as npt

from roomtape_service.recording.opus import OPUS_RATE, CorruptPacketError, packet_samples
from roomtape_service.recording.protocol import TrackCodec

__all__ = ["SAMPLE_BYTES", "PayloadDecoder", "is_silent", "samples_in", "to_mono"]

SAMPLE_BYTES = 2
_SILENT_PEAK = 32
"""-60 dBFS: nobody hears a sample more or less."""


def samples_in(codec: TrackCodec, payload: bytes, channels: int) -> int:
    """Samples for each channel that a payload stands for. Raises CorruptPacketError."""
    if codec is TrackCodec.OPUS:
        return packet_samples(payload)
    samples, rest = divmod(len(payload), SAMPLE_BYTES * channels)
    if rest or not samples:
        raise CorruptPacketError(f"{len(payload)} bytes of PCM with {channels} channels")
    return samples


class PayloadDecoder:
    """Decodes one track's payloads in order."""

    def __init__(self, codec: TrackCodec, channels: int) -> None:
        self._codec = codec
        self._channels = channels
        self._opus: av.AudioCodecContext | None = None

    def decode(self, payload: bytes, samples: int) -> bytes:
        """Interleaved PCM of exactly `samples`, which `samples_in` gave. Raises CorruptPacketError."""
        if self._codec is TrackCodec.PCM_S16LE:
            return payload
        if self._opus is None:
            self._opus = self._open()
        try:
            frames = self._opus.decode(av.Packet(payload))
        except (av.FFmpegError, ValueError) as error:
            # What it was in the middle of is void; the next packet starts afresh.
            self._opus = None
            raise CorruptPacketError(f"Opus: {error}") from error
        wanted = samples * SAMPLE_BYTES * self._channels
        if len(frames) == 1 and frames[0].samples == samples:
            return bytes(memoryview(frames[0].planes[0])[:wanted])
        self._opus = None
        raise CorruptPacketError(f"Opus: {sum(frame.samples for frame in frames)} samples, not {samples}")

    def _open(self) -> av.AudioCodecContext:
        context = av.CodecContext.create("libopus", "r")
        assert isinstance(context, av.AudioCodecContext)
        context.sample_rate = OPUS_RATE
        context.layout = "mono" if self._channels == 1 else "stereo"
        return context


def is_silent(pcm: bytes) -> bool:
    """Whether nothing in `pcm` can be heard."""
    values = np.frombuffer(pcm, np.int16)
    return bool(values.size == 0 or (values.max() <= _SILENT_PEAK and values.min() >= -_SILENT_PEAK))


def to_mono(pcm: bytes, channels: int) -> npt.NDArray[np.int16]:
    """The mean of the channels; mono as it is."""
    values: npt.NDArray[np.int16] = np.frombuffer(pcm, np.int16)
    if channels == 1:
        return values
    mean: npt.NDArray[np.int16] = values.reshape(-1, channels).sum(axis=1, dtype=np.int32) // channels
    return mean.astype(np.int16)
