"""MP3 of constant bit rate, encoded by LAME, with a tag of our own that makes decoders put out exactly the
samples that went in.

A decoder puts out the input delayed by `ENCODER_DELAY + DECODER_DELAY` samples, so `n` whole frames hold `n
* frame - delay` samples of it. What a tag can't tell, a fresh encoder could not go on with; but between two
encoders there may be silence: frames that were never encoded (`silent_frame`), which cost nothing. An
encoder that starts at frame `n` takes its input from sample `n * frame`, and all frames lie on one grid.
"""

import os
from collections import deque

import lameenc

from roomtape_service.recording.containers.mp3_frames import (
    DECODER_DELAY,
    ENCODER_DELAY,
    FrameFormat,
    frame_bytes,
    info_frame,
    nearest_bitrate,
    silent_frame,
)
from roomtape_service.recording.containers.output import OutputFile
from roomtape_service.recording.protocol import Container

__all__ = ["MP3_DELAY", "Mp3Writer", "finish_mp3", "frame_format", "growing_mp3_head"]

MP3_DELAY = ENCODER_DELAY + DECODER_DELAY

_QUALITY = 5
"""LAME's 0 to 9. At 64 kbit/s speech, 5 costs two thirds of 2 and measures alike."""
_SAMPLE_BYTES = 2
_REST_SECONDS = 2
"""Silence after which the encoder is given up: making a new one costs about a second of encoded silence."""
_FLUSH_FRAMES = 3
"""A flush fills up the last frame and puts out no more than this many."""
_HEADER_BYTES = 4
_FRAMES_MIN = 3
"""Players do not know shorter files as MP3; the tag says that the rest is no sound."""


class Mp3Writer:
    """See ContainerWriter."""

    container = Container.MP3

    def __init__(self, path: str, rate: int, channels: int, bits_per_second: int) -> None:
        self.file = OutputFile(path)
        self._format = frame_format(rate, channels, bits_per_second)
        self._frame = self._format.samples
        self._block = _SAMPLE_BYTES * channels
        self._silent = silent_frame(self._format)
        tag = growing_mp3_head(self._format)
        self._pending: list[bytes] = [tag]
        self._partial = b""
        # Where frames end in the file: of frame `_first_end` and those after it.
        self._ends: deque[int] = deque([len(tag)])
        self._first_end = 0
        self._added = 0
        self._silence_run = 0
        self._encoder: lameenc.Encoder | None = None
        # Samples that were given to encoders, or that silent frames stand for.
        self._encoded = 0

    @property
    def ready(self) -> int:
        frames = self._first_end + len(self._ends) - 1
        if frames < _FRAMES_MIN:
            return 0
        return min(self._added, frames * self._frame - MP3_DELAY)

    def add_pcm(self, pcm: bytes) -> None:
        if self._encoder is None:
            self._rest_until(self._added)
            self._encoder = _encoder(self._format)
            pcm = bytes((self._added - self._encoded) * self._block) + pcm
            self._added -= self._added - self._encoded
        self._silence_run = 0
        self._feed(self._encoder, pcm)

    def add_packet(self, packet: bytes, duration: int, samples: int) -> None:
        raise TypeError("MP3 takes PCM")

    def add_silence(self, samples: int) -> None:
        if self._encoder is None:
            self._added += samples
            self._rest_until(self._added)
            return
        self._silence_run += samples
        if self._silence_run < _REST_SECONDS * self._format.rate or samples < _FLUSH_FRAMES * self._frame:
            self._feed(self._encoder, bytes(samples * self._block))
            return
        self._flush(self._encoder)
        self._added += samples
        self._rest_until(self._added)

    def cut(self, samples: int) -> int:
        if self._pending:
            self.file.append(b"".join(self._pending))
            self._pending.clear()
        frames = frames_for(samples, self._frame)
        while self._first_end < frames:
            self._ends.popleft()
            self._first_end += 1
        return self._ends[0]

    def end(self) -> None:
        if self._encoder is not None:
            self._flush(self._encoder)
        self._rest_until(frames_for(self._added, self._frame) * self._frame)

    def _feed(self, encoder: lameenc.Encoder, pcm: bytes) -> None:
        self._take(bytes(encoder.encode(pcm)))
        samples = len(pcm) // self._block
        self._added += samples
        self._encoded += samples

    def _flush(self, encoder: lameenc.Encoder) -> None:
        self._take(bytes(encoder.flush()))
        self._encoder = None
        self._encoded = (self._first_end + len(self._ends) - 1) * self._frame

    def _rest_until(self, samples: int) -> None:
        """Silent frames for what lies whole before `samples`."""
        count = (samples - self._encoded) // self._frame
        if count > 0:
            self._take(self._silent * count)
            self._encoded += count * self._frame

    def _take(self, data: bytes) -> None:
        """Notes where frames end in what an encoder put out."""
        if not data:
            return
        self._pending.append(data)
        data = self._partial + data
        at, start = 0, self._ends[-1]
        while len(data) - at >= _HEADER_BYTES:
            length = frame_bytes(data[at : at + _HEADER_BYTES])
            if at + length > len(data):
                break
            at += length
            self._ends.append(start + at)
        self._partial = data[at:]


def frame_format(rate: int, channels: int, bits_per_second: int) -> FrameFormat:
    """The frames of a file."""
    return FrameFormat(rate, channels, nearest_bitrate(rate, bits_per_second))


def frames_for(samples: int, frame: int) -> int:
    """How many frames hold the first `samples`."""
    return max(_FRAMES_MIN, -(-(samples + MP3_DELAY) // frame))


def finish_mp3(path: str, size: int, samples: int, form: FrameFormat) -> int:
    """Cuts a file to the `size` that `cut` gave for `samples`, and writes its tag. Idempotent. Returns the
    samples that it plays.

    Raises OSError.
    """
    frames = frames_for(samples, form.samples)
    tag_bytes = len(growing_mp3_head(form))
    padding = frames * form.samples - ENCODER_DELAY - samples
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        os.pwrite(fd, info_frame(form, frames, size - tag_bytes, padding), 0)
    finally:
        os.close(fd)
    return samples


def growing_mp3_head(form: FrameFormat) -> bytes:
    """The tag of a file that is not finished."""
    return info_frame(form, 0, 0, 0)


def _encoder(form: FrameFormat) -> lameenc.Encoder:
    encoder = lameenc.Encoder()
    encoder.silence()
    encoder.set_bit_rate(form.kbps)
    encoder.set_in_sample_rate(form.rate)
    # Below 64 kbit/s LAME would choose a lower rate by itself.
    encoder.set_out_sample_rate(form.rate)
    encoder.set_channels(form.channels)
    encoder.set_quality(_QUALITY)
    return encoder
