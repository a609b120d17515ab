"""Tones in, tones found: material and analysis for tests of recordings.

Signals are numpy arrays of 16-bit samples: `(samples,)` when mono, `(samples, channels)` otherwise.
"""

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

__all__ = [
    "Samples",
    "ToneSpan",
    "a_law",
    "aac_decode",
    "aac_units",
    "decode_file",
    "ffmpeg_complaints",
    "ffmpeg_decode",
    "find_tone",
    "level_dbfs",
    "mu_law",
    "noise",
    "opus_decode",
    "opus_packets",
    "silence",
    "tone",
]

Samples = npt.NDArray[np.int16]

FULL_SCALE = 32768.0
_FADE_SECONDS = 0.002
_WINDOW_SECONDS = 0.02


def tone(hertz: float, seconds: float, rate: int = 48_000, dbfs: float = -12.0, channels: int = 1) -> Samples:
    """A sine whose peak is at `dbfs`, faded in and out over 2 ms, so that it has no clicks."""
    count = round(seconds * rate)
    times = np.arange(count) / rate
    wave = np.sin(2 * np.pi * hertz * times) * FULL_SCALE * 10 ** (dbfs / 20)
    fade = min(round(_FADE_SECONDS * rate), count // 2)
    if fade:
        ramp = np.linspace(0, 1, fade, endpoint=False)
        wave[:fade] *= ramp
        wave[-fade:] *= ramp[::-1]
    mono = np.clip(np.rint(wave), -32768, 32767).astype(np.int16)
    return mono if channels == 1 else np.repeat(mono[:, None], channels, axis=1)


def noise(seconds: float, rate: int = 48_000, seed: int = 1, peak: int = 8000, channels: int = 1) -> Samples:
    """White noise without a silent stretch: each sample can be told from every other."""
    shape: tuple[int, ...] = (round(seconds * rate),) if channels == 1 else (round(seconds * rate), channels)
    return np.random.default_rng(seed).integers(-peak, peak, shape, dtype=np.int16)


def silence(seconds: float, rate: int = 48_000, channels: int = 1) -> Samples:
    """Zeros."""
    shape: tuple[int, ...] = (round(seconds * rate),) if channels == 1 else (round(seconds * rate), channels)
    return np.zeros(shape, np.int16)


def opus_packets(signal: Samples, bitrate: int = 32_000, frame_ms: int = 20) -> list[bytes]:
    """Opus packets of a 48 kHz signal; its end is filled up to a whole frame, and the encoder's delay is not
    undone."""
    channels = 1 if signal.ndim == 1 else signal.shape[1]
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate = 48_000
    encoder.layout = "mono" if channels == 1 else "stereo"
    encoder.format = "s16"
    encoder.bit_rate = bitrate
    encoder.time_base = Fraction(1, 48_000)
    encoder.options = {"frame_duration": str(frame_ms), "vbr": "constrained"}
    size = 48 * frame_ms
    flat = np.ascontiguousarray(signal).reshape(-1)
    flat = np.concatenate([flat, np.zeros(-len(flat) % (size * channels), np.int16)])
    packets: list[bytes] = []
    for at in range(0, len(flat), size * channels):
        frame = av.AudioFrame.from_ndarray(flat[None, at : at + size * channels], "s16", encoder.layout.name)
        frame.sample_rate = 48_000
        frame.pts = at // channels
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    packets += [bytes(packet) for packet in encoder.encode(None)]
    return packets


def opus_decode(packets: Iterable[bytes], channels: int = 1) -> Samples:
    """What a decoder that starts with the first packet puts out."""
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate = 48_000
    decoder.layout = "mono" if channels == 1 else "stereo"
    decoded = [
        frame.to_ndarray().reshape(-1) for packet in packets for frame in decoder.decode(av.Packet(packet))
    ]
    return _shaped(np.concatenate(decoded).astype(np.int16), channels)


def aac_units(signal: Samples, rate: int = 48_000, bitrate: int = 64_000) -> list[bytes]:
    """AAC-LC access units of a signal, the first of which plays its first 1,024 samples: fading in, since a decoder
    would need the one before it, which is left out."""
    channels = 1 if signal.ndim == 1 else signal.shape[1]
    encoder = av.CodecContext.create("aac", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.format, encoder.bit_rate = rate, "fltp", bitrate * channels
    encoder.layout = "mono" if channels == 1 else "stereo"
    encoder.time_base = Fraction(1, rate)
    encoder.options = {"aac_coder": "fast", "flags": "+bitexact"}
    planes = (signal.reshape(-1, channels).T / FULL_SCALE).astype(np.float32)
    planes = np.pad(planes, ((0, 0), (0, -planes.shape[1] % 1024)))
    units: list[bytes] = []
    for at in range(0, planes.shape[1], 1024):
        block = np.ascontiguousarray(planes[:, at : at + 1024])
        frame = av.AudioFrame.from_ndarray(block, "fltp", encoder.layout.name)
        frame.sample_rate = rate
        units += [bytes(packet) for packet in encoder.encode(frame)]
    units += [bytes(packet) for packet in encoder.encode(None)]
    return units[1:]


def aac_decode(units: Iterable[bytes], rate: int = 48_000, channels: int = 1) -> Samples:
    """What a decoder that starts with the first unit puts out."""
    decoder = av.CodecContext.create("aac", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    # AAC-LC at the place that the rate has in the table of ISO/IEC 14496-3.
    index = (
        96_000,
        88_200,
        64_000,
        48_000,
        44_100,
        32_000,
        24_000,
        22_050,
        16_000,
        12_000,
        11_025,
        8_000,
    ).index(rate)
    decoder.extradata = (2 << 11 | index << 7 | channels << 3).to_bytes(2, "big") + b"\x56\xe5\0"
    blocks = [frame.to_ndarray() for unit in units for frame in decoder.decode(av.Packet(unit))]
    wave = np.concatenate(blocks, axis=1).T.reshape(-1).astype(np.float64) * FULL_SCALE
    return _shaped(np.clip(np.rint(wave), -32768, 32767).astype(np.int16), channels)


def mu_law(signal: Samples) -> bytes:
    """G.711 µ-law by FFmpeg."""
    return _law("pcm_mulaw", signal)


def a_law(signal: Samples) -> bytes:
    """G.711 A-law by FFmpeg."""
    return _law("pcm_alaw", signal)


def _law(codec: str, signal: Samples) -> bytes:
    channels = 1 if signal.ndim == 1 else signal.shape[1]
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.format, encoder.layout = 8_000, "s16", "mono" if channels == 1 else "stereo"
    encoder.time_base = Fraction(1, 8_000)
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(signal).reshape(1, -1), "s16", encoder.layout.name
    )
    frame.sample_rate = 8_000
    return b"".join(bytes(packet) for each in (frame, None) for packet in encoder.encode(each))


def decode_file(path: str | Path) -> tuple[Samples, int]:
    """Everything that PyAV decodes of a file, and its rate. Frames of MP4 last as long as they say."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
        resampler = av.AudioResampler(format="s16", layout=stream.codec_context.layout, rate=rate)
        is_mp4 = "mp4" in container.format.name
        blocks = [
            _lasting(
                block.to_ndarray().reshape(-1).astype(np.int16), frame.duration * channels if is_mp4 else None
            )
            for frame in container.decode(stream)
            for block in resampler.resample(frame)
        ]
    flat = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
    return _shaped(flat.astype(np.int16), channels), rate


def _lasting(block: npt.NDArray[np.int16], size: int | None) -> npt.NDArray[np.int16]:
    if size is None:
        return block
    return (
        np.concatenate([block, np.zeros(size - len(block), np.int16)]) if size > len(block) else block[:size]
    )


def ffmpeg_decode(path: str | Path, channels: int = 1) -> Samples:
    """Everything that the ffmpeg program decodes of a file; AssertionError if it complains about anything."""
    # Without the option it would complain that WAV does not name its channels.
    options = ["-nostdin", "-xerror", "-guess_layout_max", "0"]
    # It would not be sure of an MP3 file of three frames either, nor is it ever of how long a stream of AAC is.
    options += ["-v", "error" if Path(path).suffix == ".aac" else "warning"]
    options += ["-f", Path(path).suffix.removeprefix(".")]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *options, "-i", str(path), "-f", "s16le", "-"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    return _shaped(np.frombuffer(done.stdout, np.int16), channels)


def ffmpeg_complaints(paths: Sequence[str | Path]) -> str:
    """What the ffmpeg program says while it decodes files: nothing if they are sound."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error"]
    for path in paths:
        command += ["-i", str(path)]
    for number in range(len(paths)):
        command += ["-map", f"{number}:a", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    return done.stderr.decode() or ("" if done.returncode == 0 else f"exit code {done.returncode}")


@dataclass(frozen=True, slots=True)
class ToneSpan:
    """Where a tone was heard, in seconds from the start of the signal, and how loud: dBFS of its sine's peak."""

    start: float
    end: float
    dbfs: float


def find_tone(signal: Samples, hertz: float, rate: int, threshold_dbfs: float = -40.0) -> list[ToneSpan]:
    """The stretches in which a tone is louder than the threshold, to within a quarter of 20 ms.

    Windows of 20 ms tell tones apart that are 100 Hz from each other, or further.
    """
    mono = signal if signal.ndim == 1 else signal.mean(axis=1)
    size = round(_WINDOW_SECONDS * rate)
    step = size // 4
    if len(mono) < size:
        return []
    window = np.hanning(size)
    kernel = window * np.exp(-2j * np.pi * hertz * np.arange(size) / rate) * (2 / window.sum() / FULL_SCALE)
    frames = np.lib.stride_tricks.sliding_window_view(mono.astype(np.float64), size)[::step]
    levels = 20 * np.log10(np.abs(frames @ kernel) + 1e-12)
    heard = np.concatenate([[False], levels > threshold_dbfs, [False]])
    edges = np.flatnonzero(heard[1:] != heard[:-1]).reshape(-1, 2)
    spans: list[ToneSpan] = []
    for first, last in edges:
        # A window hears a tone when about a third of it has the tone.
        start = (first * step + size * 0.5) / rate if first else 0.0
        end = ((last - 1) * step + size * 0.5) / rate if last < len(levels) else len(mono) / rate
        spans.append(ToneSpan(float(start), float(end), float(np.median(levels[first:last]))))
    return spans


def level_dbfs(signal: Samples) -> float:
    """The level of a signal as that of the sine of equal power: dBFS of its peak."""
    power = float(np.mean(np.square(signal.astype(np.float64)))) if signal.size else 0.0
    return 10 * float(np.log10(2 * power / FULL_SCALE**2 + 1e-24))


def _shaped(flat: npt.NDArray[np.int16], channels: int) -> Samples:
    return flat if channels == 1 else flat.reshape(-1, channels)


def join(parts: Sequence[Samples]) -> Samples:
    """One signal out of parts that follow each other."""
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)
