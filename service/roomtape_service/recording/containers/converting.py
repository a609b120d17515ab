"""A file of another sample rate, or with other channels, than what is recorded into it.

Sample `n` of the recording is sample `n * rate // own rate` of the file. What is resampled in one go keeps to that by
itself; before silence that is long the resampler is emptied, and all after it lies again where it belongs, so that no
rounding adds up.
"""

from typing import Final

import av
import numpy as np
import numpy.typing as npt

from roomtape_service.recording.containers.output import ContainerWriter

__all__ = ["ConvertingWriter"]

_SAMPLE_BYTES: Final = 2
_EMPTY_SECONDS: Final = 0.25
"""Silence that is longer is not resampled."""


class ConvertingWriter:
    """See ContainerWriter; `inner` writes the file, and takes PCM."""

    def __init__(self, inner: ContainerWriter, own: tuple[int, int], wanted: tuple[int, int]) -> None:
        """`own` and `wanted`: rate and channels of what is added, and of the file."""
        self.container = inner.container
        self.file = inner.file
        self._inner = inner
        self._rate, self._channels = own
        self._file_rate, self._file_channels = wanted
        self._block = _SAMPLE_BYTES * self._file_channels
        self._resampler: av.AudioResampler | None = None
        self._added = 0
        # Samples that the file was given.
        self._given = 0

    @property
    def ready(self) -> int:
        """See ContainerWriter."""
        return min(self._added, ((self._inner.ready + 1) * self._rate - 1) // self._file_rate)

    def add_pcm(self, pcm: bytes) -> None:
        """See ContainerWriter."""
        samples = np.frombuffer(pcm, np.int16).reshape(-1, self._channels)
        self._added += len(samples)
        if not len(samples):
            return
        mixed = _with_channels(samples, self._file_channels)
        if self._rate == self._file_rate:
            self._give(mixed.tobytes())
            return
        layout = "mono" if self._file_channels == 1 else "stereo"
        if self._resampler is None:
            self._resampler = av.AudioResampler(format="s16", layout=layout, rate=self._file_rate)
        frame = av.AudioFrame.from_ndarray(mixed.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate = self._rate
        self._take(self._resampler.resample(frame))

    def add_packet(self, packet: bytes, duration: int, samples: int) -> None:
        """See ContainerWriter."""
        raise TypeError("what is converted takes PCM")

    def add_silence(self, samples: int) -> None:
        """See ContainerWriter."""
        if self._resampler is not None and samples < _EMPTY_SECONDS * self._rate:
            self.add_pcm(bytes(samples * self._channels * _SAMPLE_BYTES))
            return
        self._empty()
        self._added += samples
        count = self._place(self._added) - self._given
        self._inner.add_silence(count)
        self._given += count

    def cut(self, samples: int) -> int:
        """See ContainerWriter."""
        return self._inner.cut(self._place(samples))

    def end(self) -> None:
        """See ContainerWriter."""
        self._empty()
        self._inner.end()

    def _empty(self) -> None:
        """Gets out of the resampler what it holds, up to where the file has to be."""
        resampler, self._resampler = self._resampler, None
        if resampler is None:
            return
        self._take(resampler.resample(None))
        lacking = self._place(self._added) - self._given
        self._give(bytes(lacking * self._block))

    def _take(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            # It may put out a sample more than there is place for.
            size = min(frame.samples, self._place(self._added) - self._given) * self._block
            self._give(bytes(memoryview(frame.planes[0])[:size]))

    def _give(self, pcm: bytes) -> None:
        if pcm:
            self._inner.add_pcm(pcm)
            self._given += len(pcm) // self._block

    def _place(self, samples: int) -> int:
        return samples * self._file_rate // self._rate


def _with_channels(samples: npt.NDArray[np.int16], channels: int) -> npt.NDArray[np.int16]:
    if samples.shape[1] == channels:
        return np.ascontiguousarray(samples)
    if channels == 1:
        mean: npt.NDArray[np.int32] = samples.sum(axis=1, dtype=np.int32) // samples.shape[1]
        return mean.astype(np.int16)
    return np.repeat(samples, channels, axis=1)
