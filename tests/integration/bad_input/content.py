"""What witnesses publish: sounds of which every sample, or every packet, can be told from the next."""

import io
import urllib.request
import wave
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

__all__ = [
    "FRAME_NS",
    "FRAME_SAMPLES",
    "RATE_HZ",
    "Samples",
    "fetch",
    "noise_frame",
    "opus_packets",
    "packets_of",
    "samples_in",
    "samples_of",
    "without_silence",
]

RATE_HZ = 48_000
FRAME_SAMPLES = 960
FRAME_NS = 20_000_000
_LOUDEST = 12_000

Samples = npt.NDArray[np.int16]


def noise_frame(randomness: np.random.Generator, samples: int = FRAME_SAMPLES) -> bytes:
    """A frame of PCM in which no sample is zero, so that silence between frames can be told from them."""
    values = randomness.integers(1, _LOUDEST, samples) * randomness.choice((-1, 1), samples)
    frame: bytes = values.astype("<i2").tobytes()
    return frame


def opus_packets(count: int, seed: int) -> list[bytes]:
    """Packets of 20 ms, mono."""
    randomness = np.random.default_rng(seed)
    context = av.CodecContext.create("libopus", "w")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate = RATE_HZ
    context.layout = "mono"
    context.format = "s16"
    packets: list[bytes] = []
    while len(packets) < count:
        values = np.frombuffer(noise_frame(randomness), np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(values, format="s16", layout="mono")
        frame.sample_rate = RATE_HZ
        packets += [bytes(packet) for packet in context.encode(frame)]
    return packets[:count]


def fetch(url: str) -> bytes:
    """What a URL plays."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def samples_of(path: Path) -> Samples:
    """The samples of a mono WAV file."""
    return samples_in(path.read_bytes())


def samples_in(data: bytes) -> Samples:
    """The samples of a mono WAV file that was read."""
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def packets_of(path: Path) -> list[bytes]:
    """The Opus packets of an Ogg file."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux() if packet.size]


def without_silence(samples: Samples) -> Samples:
    """The samples that are not zero."""
    loud: Samples = samples[samples != 0]
    return loud
