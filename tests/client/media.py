"""Media files made for tests, and what is heard in frames."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream

from roomtape.v1 import ingest_pb2, media_pb2

Samples = npt.NDArray[np.int16]


_DECODERS = {
    media_pb2.CODEC_OPUS: "libopus",
    media_pb2.CODEC_AAC: "aac",
    media_pb2.CODEC_PCMU: "pcm_mulaw",
    media_pb2.CODEC_PCMA: "pcm_alaw",
}


def tone(hertz: float, seconds: float, rate_hz: int = 48_000, channels: int = 1) -> Samples:
    """A sine at half of full scale; further channels are harmonics of it. Shape (samples, channels)."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    waves = [np.sin(2 * np.pi * hertz * (1 + channel) * time) for channel in range(channels)]
    return (np.stack(waves, axis=1) * 16_384).astype(np.int16)


def write(path: Path, codec: str, samples: Samples, rate_hz: int = 48_000) -> Path:
    """Encodes `samples` into the container that the name of `path` says."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz)
        assert isinstance(stream, AudioStream)
        layouts = {1: "mono", 2: "stereo", 6: "5.1"}
        stream.layout = layouts[samples.shape[1]]
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "s16", layouts[samples.shape[1]])
        frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), 0
        resampler = av.AudioResampler(
            format=stream.codec_context.format,
            layout=stream.codec_context.layout,
            rate=rate_hz,
            frame_size=stream.codec_context.frame_size or 1024,
        )
        for each in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(each))
        container.mux(stream.encode(None))
    return path


def packets(path: Path) -> list[bytes]:
    """The packets of a file's audio, as they are."""
    with av.open(str(path)) as container:
        return [data for packet in container.demux(container.streams.audio[0]) if (data := bytes(packet))]


def heard(offer: ingest_pb2.TrackOffer, payloads: Sequence[bytes]) -> Samples:
    """The samples of a track's payloads. Shape (samples, channels)."""
    if offer.codec == media_pb2.CODEC_PCM_S16LE:
        return np.frombuffer(b"".join(payloads), np.int16).reshape(-1, offer.channels)
    decoder = av.AudioCodecContext.create(_DECODERS[offer.codec], "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate = offer.sample_rate_hz
    decoder.layout = "mono" if offer.channels == 1 else "stereo"
    frames = [frame for payload in payloads for frame in decoder.decode(av.Packet(payload))]
    if offer.codec == media_pb2.CODEC_AAC:
        wave = np.concatenate([frame.to_ndarray().T.reshape(-1, offer.channels) for frame in frames])
        return np.clip(np.rint(wave.astype(np.float64) * 32_768), -32_768, 32_767).astype(np.int16)
    return np.concatenate([frame.to_ndarray().reshape(-1, offer.channels) for frame in frames]).astype(
        np.int16
    )


def pitch(samples: npt.NDArray[np.int16], rate_hz: int = 48_000) -> float:
    """The strongest frequency."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate_hz / len(samples)
