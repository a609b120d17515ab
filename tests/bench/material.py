"""Spoken clips, made once out of those of the demo: Opus of 32 kbit/s in 20 ms packets, 48 kHz, mono.

A talking clip is an Ogg file in which every frame is there. A silent one is a Matroska file of comfort noise with
one packet in 400 ms, as discontinuous transmission sends it; its times show the gaps, which Ogg pages can't.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np
from av.audio.stream import AudioStream

import roomtape_service.demo

__all__ = ["CLIP_SECONDS", "FRAME_SECONDS", "Clip", "Material"]

CLIP_SECONDS = 40
FRAME_SECONDS = 0.02

_RATE = 48_000
_FRAME = 960
_BITRATE = 32_000
_TALKERS = 5
# How libopus sends silence under DTX: 20 frames of 20 ms, of which one goes out.
_DTX_FRAMES = 20
# So far apart in the same words are the talkers.
_APART = 5 * _RATE
_DEMO = Path(roomtape_service.demo.__path__[0])

Pcm: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.int16]]"


@dataclass(frozen=True, slots=True)
class Clip:
    """A file of Opus packets."""

    path: Path

    def packets(self) -> Sequence[tuple[int, bytes]]:
        """Number of the frame, from 0, and payload of each packet."""
        with av.open(str(self.path)) as container:
            packets = [
                (float((packet.pts or 0) * packet.time_base), bytes(packet))
                for packet in container.demux(audio=0)
                if packet.size and packet.time_base
            ]
        first = packets[0][0]
        return [(round((seconds - first) / FRAME_SECONDS), payload) for seconds, payload in packets]


class Material:
    """The clips below a folder; they are made when one is missing."""

    def __init__(self, folder: Path) -> None:
        self.talking = [Clip(folder / f"talking-{index}.ogg") for index in range(_TALKERS)]
        """Nobody stops talking, each at other words."""
        self.silent = Clip(folder / "silent.mka")
        """Nobody talks; nearly nothing is sent."""

    def make(self) -> None:
        """Makes what is missing."""
        for index, clip in enumerate(self.talking):
            if not clip.path.exists():
                _write_ogg(clip.path, _speech(_spoken(), index))
        if not self.silent.path.exists():
            noise = np.random.default_rng(99).normal(0, 8, CLIP_SECONDS * _RATE)
            full = self.silent.path.with_suffix(".ogg")
            _write_ogg(full, noise.astype(np.int16))
            _write_thinned(full, self.silent.path)
            full.unlink()

    def crowd(self, size: int, talking: int) -> list[Clip]:
        """A room of `size` users, of whom `talking` talk."""
        voices = [self.talking[index % _TALKERS] for index in range(talking)]
        return [*voices, *[self.silent] * (size - talking)]


def _spoken() -> Sequence[Pcm]:
    """What each of the demo's clips says."""
    decoded = []
    for path in sorted(_DEMO.glob("*.opus")):
        with av.open(str(path)) as container:
            resampler = av.AudioResampler(format="s16", layout="mono", rate=_RATE)
            frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        decoded.append(np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.int16))
    return decoded


def _speech(spoken: Sequence[Pcm], turn: int) -> Pcm:
    """All clips one after the other and again; each turn begins elsewhere."""
    return np.resize(np.roll(np.concatenate(spoken), -turn * _APART), CLIP_SECONDS * _RATE)


def _write_ogg(path: Path, pcm: Pcm) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with av.open(str(part), "w", format="ogg", options={"page_duration": "200000"}) as container:
        stream = container.add_stream("libopus", rate=_RATE, layout="mono")
        assert isinstance(stream, AudioStream)
        stream.bit_rate = _BITRATE
        stream.codec_context.options = {"application": "voip", "frame_duration": "20"}
        for start in range(0, len(pcm), _FRAME):
            frame = av.AudioFrame.from_ndarray(pcm[None, start : start + _FRAME], format="s16", layout="mono")
            frame.sample_rate, frame.pts = _RATE, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    part.rename(path)


def _write_thinned(source: Path, path: Path) -> None:
    part = path.with_suffix(".part")
    with av.open(str(source)) as full, av.open(str(part), "w", format="matroska") as thin:
        stream = thin.add_stream_from_template(full.streams.audio[0])
        for index, packet in enumerate(full.demux(audio=0)):
            if packet.size and index % _DTX_FRAMES == 0:
                packet.stream = stream
                thin.mux(packet)
    part.rename(path)
