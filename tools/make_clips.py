"""Makes the demo's clips: `.venv/bin/python tools/make_clips.py`; needs espeak-ng (`apt-get install espeak-ng`)."""

import io
import subprocess

import av
import numpy as np
from av.audio.resampler import AudioResampler

from roomtape_service.demo.clips import CLIPS, Clip

Samples = np.ndarray[tuple[int], np.dtype[np.float32]]

RATE_HZ = 48_000
FRAME_SAMPLES = 960
BITRATE_BPS = 24_000
# Two who talk at once stay below full scale, so that a mix needs no limiter.
PEAK = 0.45


def speak(clip: Clip) -> bytes:
    """The sentence as a WAV file."""
    command = [
        "espeak-ng",
        "--stdout",
        "-v",
        clip.voice,
        "-p",
        str(clip.pitch),
        "-s",
        str(clip.words_per_minute),
    ]
    return subprocess.run([*command, clip.text], check=True, stdout=subprocess.PIPE).stdout


def samples(wav: bytes) -> Samples:
    """The WAV file at 48 kHz and `PEAK`, in whole frames."""
    resampler = AudioResampler(format="flt", layout="mono", rate=RATE_HZ)
    with av.open(io.BytesIO(wav), "r") as source:
        frames = [out for frame in source.decode(audio=0) for out in resampler.resample(frame)]
    frames += resampler.resample(None)
    pcm = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    scaled: Samples = (pcm * (PEAK / np.abs(pcm).max())).astype(np.float32)
    return np.pad(scaled, (0, -len(scaled) % FRAME_SAMPLES))


def encode(clip: Clip) -> None:
    """Writes the clip's Opus file, the same bytes each time."""
    pcm = samples(speak(clip))
    with av.open(str(clip.path), "w", format="ogg", options={"fflags": "+bitexact"}) as sink:
        stream = sink.add_stream("libopus", RATE_HZ, layout="mono", format="flt")
        stream.bit_rate = BITRATE_BPS
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for start in range(0, len(pcm), FRAME_SAMPLES):
            frame = av.AudioFrame.from_ndarray(pcm[None, start : start + FRAME_SAMPLES], "flt", "mono")
            frame.sample_rate = RATE_HZ
            frame.pts = start
            sink.mux(stream.encode(frame))
        sink.mux(stream.encode(None))
    print(f"{clip.path.name}: {len(pcm) / RATE_HZ:.2f} s, {clip.path.stat().st_size:,} bytes")


if __name__ == "__main__":
    for each in CLIPS:
        encode(each)
