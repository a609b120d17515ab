"""Access units of AAC in their places: encoded, or as they came.

A unit is 1,024 samples. A decoder puts out the encoder's input delayed by `ENCODER_DELAY`, so `n` units hold
`(n - 1) * 1024` samples of it. Between two encoders there may be silence: units that were never encoded, which cost
nothing. An encoder that starts at unit `n` takes its input from sample `n * 1024`, and all units lie on one grid.

Units that came lie where they were captured, on no grid; silence between them is made of units of which there are as
many as fit, so that a decoder that knows no times is never off by a whole one.
"""

from collections import deque
from fractions import Fraction
from typing import Final, Protocol

import av
import numpy as np

from roomtape_service.recording.aac import UNIT_SAMPLES, access_unit, silent_unit
from roomtape_service.recording.containers.m4a_boxes import Placed

__all__ = ["EncodedUnits", "PassedUnits", "Units", "aac_bitrate", "units_for"]

_UNIT_BITS_MAX: Final = 6144
"""Of each channel: what every decoder can hold (ISO/IEC 14496-3, 4.5.3.2)."""
_SAMPLE_BYTES: Final = 2
_FULL_SCALE = np.float32(32768)
_REST_SECONDS: Final = 2
"""Silence after which the encoder is given up."""
_FLUSH_UNITS: Final = 3
"""A flush fills up the last unit and puts out no more than this many."""


class Units(Protocol):
    """Where units come from. Counts are samples for each channel since the segment's start."""

    @property
    def ready(self) -> int:
        """See ContainerWriter."""
        ...

    def add_pcm(self, pcm: bytes) -> None:
        """See ContainerWriter."""
        ...

    def add_packet(self, packet: bytes, duration: int, samples: int) -> None:
        """See ContainerWriter."""
        ...

    def add_silence(self, samples: int) -> None:
        """See ContainerWriter."""
        ...

    def take(self, samples: int) -> list[Placed]:
        """What is needed to play up to `samples`, and was not taken before."""
        ...

    def end(self) -> None:
        """See ContainerWriter."""
        ...


def aac_bitrate(rate: int, channels: int, bits_per_second: int) -> int:
    """The bit rate asked for, or the highest that units at this rate can have."""
    return min(bits_per_second, _UNIT_BITS_MAX * channels * rate // UNIT_SAMPLES)


def units_for(samples: int) -> int:
    """How many encoded units hold the first `samples`."""
    return 1 + -(-samples // UNIT_SAMPLES)


class EncodedUnits:
    """Encodes PCM."""

    def __init__(self, rate: int, channels: int, bits_per_second: int) -> None:
        self._rate = rate
        self._channels = channels
        self._bitrate = aac_bitrate(rate, channels, bits_per_second)
        self._block = _SAMPLE_BYTES * channels
        self._silent = silent_unit(channels)
        self._units: deque[bytes] = deque()
        self._taken = 0
        self._added = 0
        self._silence_run = 0
        self._encoder: av.AudioCodecContext | None = None
        # PCM of less than a unit.
        self._partial = b""
        # Samples that were given to encoders, or that silent units stand for.
        self._encoded = 0

    @property
    def ready(self) -> int:
        """See Units."""
        return max(0, min(self._added, (self._taken + len(self._units) - 1) * UNIT_SAMPLES))

    def add_pcm(self, pcm: bytes) -> None:
        """See Units."""
        if self._encoder is None:
            self._rest_until(self._added)
            self._encoder = _encoder(self._rate, self._channels, self._bitrate)
            self._partial = bytes((self._added - self._encoded) * self._block)
        self._silence_run = 0
        self._feed(self._encoder, pcm)

    def add_packet(self, packet: bytes, duration: int, samples: int) -> None:
        """See Units."""
        raise TypeError("AAC that is encoded takes PCM")

    def add_silence(self, samples: int) -> None:
        """See Units."""
        if self._encoder is None:
            self._added += samples
            self._rest_until(self._added)
            return
        self._silence_run += samples
        if self._silence_run < _REST_SECONDS * self._rate or samples < _FLUSH_UNITS * UNIT_SAMPLES:
            self._feed(self._encoder, bytes(samples * self._block))
            return
        self._flush(self._encoder)
        self._added += samples
        self._rest_until(self._added)

    def take(self, samples: int) -> list[Placed]:
        """See Units."""
        first, wanted = self._taken, units_for(samples) - self._taken
        units = [self._units.popleft() for _ in range(min(wanted, len(self._units)))]
        self._taken += len(units)
        return [Placed(unit, (first + index) * UNIT_SAMPLES) for index, unit in enumerate(units)]

    def end(self) -> None:
        """See Units."""
        if self._encoder is not None:
            self._flush(self._encoder)
        self._rest_until(units_for(self._added) * UNIT_SAMPLES)

    def _feed(self, encoder: av.AudioCodecContext, pcm: bytes) -> None:
        self._added += len(pcm) // self._block
        pcm = self._partial + pcm
        unit_bytes = UNIT_SAMPLES * self._block
        whole = len(pcm) // unit_bytes
        self._partial = pcm[whole * unit_bytes :]
        if not whole:
            return
        values = np.frombuffer(pcm, np.int16, whole * UNIT_SAMPLES * self._channels)
        planes = np.ascontiguousarray(values.reshape(-1, self._channels).T.astype(np.float32) / _FULL_SCALE)
        for index in range(whole):
            wave = planes[:, index * UNIT_SAMPLES : (index + 1) * UNIT_SAMPLES]
            frame = av.AudioFrame(format="fltp", layout=encoder.layout.name, samples=UNIT_SAMPLES)
            for plane, channel in zip(frame.planes, wave, strict=True):
                plane.update(channel.tobytes())
            frame.sample_rate = self._rate
            self._units.extend(bytes(packet) for packet in encoder.encode(frame))
        self._encoded += whole * UNIT_SAMPLES

    def _flush(self, encoder: av.AudioCodecContext) -> None:
        if self._partial:
            rest = UNIT_SAMPLES * self._block - len(self._partial)
            self._feed(encoder, bytes(rest))
            self._added -= rest // self._block
        self._units.extend(bytes(packet) for packet in encoder.encode(None))
        self._encoder = None
        self._encoded = (self._taken + len(self._units)) * UNIT_SAMPLES

    def _rest_until(self, samples: int) -> None:
        """Silent units for what lies whole before `samples`."""
        count = (samples - self._encoded) // UNIT_SAMPLES
        if count > 0:
            self._units.extend([self._silent] * count)
            self._encoded += count * UNIT_SAMPLES


class PassedUnits:
    """Units as they came."""

    def __init__(self, rate: int, channels: int) -> None:
        self._rate = rate
        self._channels = channels
        self._silent = silent_unit(channels)
        # Units, or None for silence, with where they end on the timeline.
        self._items: deque[tuple[bytes | None, int, int]] = deque()
        self._added = 0
        # Up to where the timeline was taken, and how many units that were.
        self._end = 0
        self._taken = 0

    @property
    def ready(self) -> int:
        """See Units."""
        return self._added

    def add_pcm(self, pcm: bytes) -> None:
        """See Units."""
        raise TypeError("AAC that passes takes packets")

    def add_packet(self, packet: bytes, duration: int, samples: int) -> None:
        """See Units."""
        self._items.append(
            (access_unit(packet, self._rate, self._channels), self._added, self._added + samples)
        )
        self._added += samples

    def add_silence(self, samples: int) -> None:
        """See Units."""
        self._items.append((None, self._added, self._added + samples))
        self._added += samples

    def take(self, samples: int) -> list[Placed]:
        """See Units."""
        items, placed = self._items, list[Placed]()
        while items:
            unit, start, end = items[0]
            if unit is None:
                placed += self._silence(min(end, samples))
            elif end <= samples:
                placed.append(Placed(unit, start))
                self._taken += 1
                self._end = end
            if end > samples:
                break
            items.popleft()
        return placed

    def end(self) -> None:
        """See Units."""

    def _silence(self, until: int) -> list[Placed]:
        start = self._end
        if until <= start:
            return []
        # The first unit lies at the start, whatever it is.
        count = max(int(not self._taken), (until - self._taken * UNIT_SAMPLES) // UNIT_SAMPLES)
        if count <= 0:
            return []
        self._taken += count
        self._end = min(until, start + count * UNIT_SAMPLES)
        return [Placed(self._silent, start + index * UNIT_SAMPLES) for index in range(count)]


def _encoder(rate: int, channels: int, bits_per_second: int) -> av.AudioCodecContext:
    encoder = av.CodecContext.create("aac", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate = rate
    encoder.layout = "mono" if channels == 1 else "stereo"
    encoder.format = "fltp"
    encoder.bit_rate = bits_per_second
    encoder.time_base = Fraction(1, rate)
    # A quarter of the time of the usual search, for 7 % more bits. Without the name of the encoder in each first unit.
    encoder.options = {"aac_coder": "fast", "flags": "+bitexact"}
    return encoder
