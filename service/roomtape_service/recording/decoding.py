"""Payloads to 16-bit PCM."""

from collections.abc import Sequence
from typing import Protocol

import av
import numpy as np
import numpy.typing as npt

from roomtape_service.recording.aac import UNIT_SAMPLES, access_unit, audio_specific_config
from roomtape_service.recording.g711 import A_LAW, MU_LAW, Law, expand
from roomtape_service.recording.opus import (
    OPUS_RATE,
    PACKET_SAMPLES_MAX,
    STEREO_BIT,
    CorruptPacketError,
    can_join,
    join_packets,
    packet_samples,
)
from roomtape_service.recording.protocol import TrackCodec

__all__ = [
    "SAMPLE_BYTES",
    "OpusDecoder",
    "PayloadDecoder",
    "aac_decoder",
    "interleaved",
    "is_silent",
    "payload_decoder",
    "samples_in",
    "sizes_in",
    "to_mono",
]

SAMPLE_BYTES = 2
_NATIVE, _LIBOPUS = "opus", "libopus"
_FULL_SCALE = np.float32(32768)
_SILENT_PEAK = 32
"""-60 dBFS: nobody hears a sample more or less."""


def samples_in(codec: TrackCodec, payload: bytes, rate: int, channels: int) -> int:
    """Samples for each channel that a payload stands for; those of no packets for one second at most.

    Raises CorruptPacketError.
    """
    if codec is TrackCodec.OPUS:
        return packet_samples(payload)
    if codec is TrackCodec.AAC:
        access_unit(payload, rate, channels)
        return UNIT_SAMPLES
    name, sample_bytes = ("PCM", SAMPLE_BYTES) if codec is TrackCodec.PCM_S16LE else ("G.711", 1)
    samples, rest = divmod(len(payload), sample_bytes * channels)
    if rest or not samples:
        raise CorruptPacketError(f"{len(payload)} bytes of {name} with {channels} channels")
    if samples > rate:
        raise CorruptPacketError(f"{samples} samples of {name}, more than a second")
    return samples


def sizes_in(codec: TrackCodec, payloads: Sequence[bytes], rate: int, channels: int) -> list[int]:
    """`samples_in` of each. Raises CorruptPacketError if one is corrupt."""
    if codec is TrackCodec.OPUS:
        return [packet_samples(payload) for payload in payloads]
    return [samples_in(codec, payload, rate, channels) for payload in payloads]


class PayloadDecoder(Protocol):
    """Decodes one track's payloads in order."""

    def decode(self, payloads: Sequence[bytes], samples: Sequence[int]) -> list[bytes | None]:
        """Interleaved PCM of exactly `samples` for each payload, as `samples_in` gave; None for one that is
        corrupt."""
        ...


def payload_decoder(codec: TrackCodec, rate: int, channels: int) -> PayloadDecoder:
    """The decoder of a track."""
    match codec:
        case TrackCodec.OPUS:
            return OpusDecoder(channels)
        case TrackCodec.PCM_S16LE:
            return _PcmDecoder()
        case TrackCodec.AAC:
            return _AacDecoder(rate, channels)
        case TrackCodec.PCMU:
            return _LawDecoder(MU_LAW)
        case TrackCodec.PCMA:
            return _LawDecoder(A_LAW)


class _PcmDecoder:
    def decode(self, payloads: Sequence[bytes], samples: Sequence[int]) -> list[bytes | None]:
        return list(payloads)


class _LawDecoder:
    def __init__(self, law: Law) -> None:
        self._law = law

    def decode(self, payloads: Sequence[bytes], samples: Sequence[int]) -> list[bytes | None]:
        return [expand(self._law, payload) for payload in payloads]


class _AacDecoder:
    """What a unit decodes to depends on the one before it: after one that can't be decoded the next fades in."""

    def __init__(self, rate: int, channels: int) -> None:
        self._rate = rate
        self._channels = channels
        self._context: av.AudioCodecContext | None = None

    def decode(self, payloads: Sequence[bytes], samples: Sequence[int]) -> list[bytes | None]:
        return [self._decode(payload) for payload in payloads]

    def _decode(self, payload: bytes) -> bytes | None:
        if self._context is None:
            self._context = aac_decoder(self._rate, self._channels)
        try:
            frames = self._context.decode(av.Packet(access_unit(payload, self._rate, self._channels)))
        except (av.FFmpegError, ValueError):
            frames = []
        is_good = len(frames) == 1 and frames[0].samples == UNIT_SAMPLES
        if is_good and len(frames[0].layout.channels) == self._channels:
            return interleaved(frames[0], UNIT_SAMPLES * SAMPLE_BYTES * self._channels)
        self._context = None
        return None


def aac_decoder(rate: int, channels: int) -> av.AudioCodecContext:
    """A decoder of access units."""
    context = av.CodecContext.create("aac", "r")
    assert isinstance(context, av.AudioCodecContext)
    context.extradata = audio_specific_config(rate, channels)
    context.thread_count = 1
    return context


class OpusDecoder:
    """FFmpeg's own decoder, which takes a third less time than libopus, several packets in one call.

    Its resampler keeps back some samples at the start of narrow-band speech, and it does not mix stereo down. A track
    where that shows is decoded by libopus from there on, which puts out exactly what a packet is long.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._block = SAMPLE_BYTES * channels
        self._name = _NATIVE
        self._context: av.AudioCodecContext | None = None

    def decode(self, payloads: Sequence[bytes], samples: Sequence[int]) -> list[bytes | None]:
        """See PayloadDecoder."""
        decoded: list[bytes | None] = []
        at = 0
        while at < len(payloads):
            end = self._run_end(payloads, samples, at)
            decoded += self._decode_run(payloads[at:end], samples[at:end])
            at = end
        return decoded

    def _run_end(self, payloads: Sequence[bytes], samples: Sequence[int], start: int) -> int:
        """Where packets end that can be decoded as one."""
        first = payloads[start]
        if not can_join(first):
            return start + 1
        end = min(len(payloads), start + PACKET_SAMPLES_MAX // samples[start])
        for index in range(start + 1, end):
            if payloads[index][0] != first[0] or len(payloads[index]) < 2:
                return index
        return end

    def _decode_run(self, payloads: Sequence[bytes], samples: Sequence[int]) -> list[bytes | None]:
        if len(payloads) == 1:
            return [self._decode_one(payloads[0], samples[0])]
        pcm = self._decode_packet(join_packets(payloads), sum(samples))
        if pcm is None:
            return [self._decode_one(*each) for each in zip(payloads, samples, strict=True)]
        size = samples[0] * self._block
        return [pcm[at : at + size] for at in range(0, len(pcm), size)]

    def _decode_one(self, payload: bytes, samples: int) -> bytes | None:
        pcm = self._decode_packet(payload, samples)
        if pcm is None and self._name != _LIBOPUS:
            self._name = _LIBOPUS
            pcm = self._decode_packet(payload, samples)
        return pcm

    def _decode_packet(self, packet: bytes, samples: int) -> bytes | None:
        """None for one that can't be decoded, or not to its full length; the next one then starts afresh."""
        if packet[0] & STEREO_BIT and self._channels == 1 and self._name != _LIBOPUS:
            self._name, self._context = _LIBOPUS, None
        if self._context is None:
            self._context = _open(self._name, self._channels)
        try:
            frames = self._context.decode(av.Packet(packet))
        except (av.FFmpegError, ValueError):
            frames = []
        if len(frames) == 1 and frames[0].samples == samples:
            return interleaved(frames[0], samples * self._block)
        self._context = None
        return None


def _open(name: str, channels: int) -> av.AudioCodecContext:
    context = av.CodecContext.create(name, "r")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate = OPUS_RATE
    context.layout = "mono" if channels == 1 else "stereo"
    context.thread_count = 1
    return context


def interleaved(frame: av.AudioFrame, size: int) -> bytes:
    """The first `size` bytes of a frame as 16-bit samples; planes are floats."""
    if frame.format.name == "s16":
        return bytes(memoryview(frame.planes[0])[:size])
    count = frame.samples
    planes = [np.frombuffer(memoryview(plane), np.float32, count) for plane in frame.planes]
    values = (planes[0] if len(planes) == 1 else np.stack(planes, axis=1)) * _FULL_SCALE
    np.rint(values, out=values)
    values.clip(-_FULL_SCALE, _FULL_SCALE - 1, out=values)
    return values.astype(np.int16).tobytes()


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
