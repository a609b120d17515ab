"""Frames out of media files, by PyAV (the extra `roomtape[media]`).

Opus in Ogg, WebM, Matroska and MP4 is handed out packet by packet, untouched; so are AAC-LC, and G.711 in frames of
20 ms. Everything else is decoded, resampled to 48 kHz and cut into frames of 20 ms: PCM, or Opus if a bit rate for it
is given, which also makes Opus of AAC and G.711.

Opus and AAC begin with samples that are no sound of the file (RFC 7845 §4.2, an edit list), and end with such. They are
handed out too, since decoders need them, but what a frame tells of being heard is without them.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, SupportsBytes, cast

from roomtape.client.clock import NANOSECONDS
from roomtape.client.frames import AAC_SAMPLES, opus_samples, samples_ns
from roomtape.v1 import ingest_pb2, media_pb2

if TYPE_CHECKING:
    import av
    from av.audio.codeccontext import AudioCodecContext
    from av.audio.stream import AudioStream
    from av.container import InputContainer

__all__ = ["MediaFile", "MediaFrame"]

RATE_HZ = 48_000
FRAME_SAMPLES = 960
MAX_CHANNELS = 2

# Containers whose Opus packets are plain ones; MPEG-TS puts a header of its own before each.
_PLAIN_OPUS = frozenset({"ogg", "webm", "matroska", "mp4", "mov"})

# The header of Opus in all of them.
_OPUS_HEAD = b"OpusHead"
_PRE_SKIP = slice(10, 12)

# Time stamps of WebM are whole milliseconds; what is off by more than this part of a second is a pause.
PAUSE_DIVISOR = 400

AAC_RATES_HZ = frozenset({8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000})
_G711_RATE_HZ = 8_000
_G711 = {"pcm_mulaw": media_pb2.CODEC_PCMU, "pcm_alaw": media_pb2.CODEC_PCMA}
_G711_FRAME_SAMPLES = 160


@dataclass(frozen=True, slots=True)
class MediaFrame:
    """One frame of a file."""

    payload: bytes

    media_time_ns: int
    """When it plays, counted from the file's first frame."""

    heard_ns: int
    """When it plays, counted from where the file's sound begins: less than 0 in what Opus needs before (pre-skip)."""

    duration_ns: int
    """How long it is heard: at the file's end that may be less than it plays."""


class MediaFile:
    """The first audio stream of a file. All methods block.

    `opus_bitrate_bps` asks for Opus where the file has none. Raises ModuleNotFoundError without the extra `media`,
    OSError for files that can't be read, ValueError for those without audio.
    """

    def __init__(self, path: str | Path, opus_bitrate_bps: int | None = None) -> None:
        try:
            self._container = _open(path)
        except EOFError as cause:
            raise ValueError(f"{path} is no media file") from cause
        try:
            self._stream = _first_audio(self._container, path)
            self.channels = min(MAX_CHANNELS, self._stream.codec_context.channels)
            self._rate_hz = RATE_HZ
            self._frames = self._choose(opus_bitrate_bps)
        except BaseException:
            self._container.close()
            raise

    @property
    def duration_ns(self) -> int | None:
        """How long the file says that it is; None when it does not."""
        if self._stream.duration is not None and self._stream.time_base is not None:
            return int(self._stream.duration * self._stream.time_base * NANOSECONDS)
        if self._container.duration is not None:
            return self._container.duration * (NANOSECONDS // 1_000_000)
        return None

    def offer(self, track_id: str) -> ingest_pb2.TrackOffer:
        """The track to publish the file as."""
        return ingest_pb2.TrackOffer(
            track_id=track_id, codec=self.codec, sample_rate_hz=self._rate_hz, channels=self.channels
        )

    def read(self, at_least_ns: int) -> list[MediaFrame]:
        """The next frames, of `at_least_ns` together; fewer, or none, at the end of the file."""
        frames: list[MediaFrame] = []
        end_ns: int | None = None
        for frame in self._frames:
            frames.append(frame)
            end_ns = frame.media_time_ns + at_least_ns if end_ns is None else end_ns
            if frame.media_time_ns + frame.duration_ns >= end_ns:
                break
        return frames

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def _choose(self, opus_bitrate_bps: int | None) -> Iterator[MediaFrame]:
        formats = set(self._container.format.name.split(","))
        context = self._stream.codec_context
        self.codec: media_pb2.Codec.ValueType = media_pb2.CODEC_OPUS
        is_few = context.channels <= MAX_CHANNELS
        if context.name in ("opus", "libopus") and is_few and formats & _PLAIN_OPUS:
            return self._untouched(opus_samples, _pre_skip(context))
        if opus_bitrate_bps is not None:
            return self._encoded(opus_bitrate_bps)
        if _is_aac_lc(context) and is_few:
            self.codec, self._rate_hz = media_pb2.CODEC_AAC, context.sample_rate
            return self._untouched(lambda _unit: AAC_SAMPLES)
        if context.name in _G711 and is_few and context.sample_rate == _G711_RATE_HZ:
            self.codec, self._rate_hz = _G711[context.name], _G711_RATE_HZ
            return self._g711()
        self.codec = media_pb2.CODEC_PCM_S16LE
        return self._pcm()

    def _untouched(
        self, samples_of: Callable[[bytes], int], skipped: int | None = None
    ) -> Iterator[MediaFrame]:
        """`skipped`: samples before the sound; None: the time stamps say it."""
        rate_hz, pause = self._rate_hz, self._rate_hz // PAUSE_DIVISOR
        first: int | None = None
        position = 0
        for packet in self._container.demux(self._stream):
            payload = bytes(packet)
            if not payload:
                continue
            if packet.pts is not None:
                stamp = round(packet.pts * packet.time_base * rate_hz)
                first = stamp if first is None else first
                skipped = max(0, -first) if skipped is None else skipped
                if stamp - first - position > pause:
                    position = stamp - first
            samples = samples_of(payload)
            heard = samples
            if packet.duration is not None:
                told = round(packet.duration * packet.time_base * rate_hz)
                heard = told if samples - told > pause else samples
            yield _frame(payload, position, heard, skipped or 0, rate_hz)
            position += samples

    def _g711(self) -> Iterator[MediaFrame]:
        size, position, left = _G711_FRAME_SAMPLES * self.channels, 0, b""
        for packet in self._container.demux(self._stream):
            data = bytes(packet)
            left += data
            # The last packet is empty, and ends what is left.
            whole = len(left) - len(left) % size if data else len(left)
            for at in range(0, whole, size):
                payload = left[at : at + size]
                samples = len(payload) // self.channels
                yield _frame(payload, position, samples, 0, _G711_RATE_HZ)
                position += samples
            left = left[whole:]

    def _pcm(self) -> Iterator[MediaFrame]:
        position = 0
        for frame in self._resampled():
            payload = bytes(frame.planes[0])[: frame.samples * self.channels * 2]
            yield _frame(payload, position, frame.samples)
            position += frame.samples

    def _encoded(self, bitrate_bps: int) -> Iterator[MediaFrame]:
        import av

        encoder = av.AudioCodecContext.create("libopus", "w")
        encoder.sample_rate, encoder.format, encoder.layout = RATE_HZ, "s16", self._layout
        encoder.bit_rate = bitrate_bps
        encoder.open()
        position = end = 0
        skipped = _pre_skip(encoder)
        for frame in itertools.chain(self._resampled(), (None,)):
            end += 0 if frame is None else frame.samples
            for packet in cast("list[SupportsBytes]", encoder.encode(frame)):  # pyright: ignore[reportUnknownMemberType]
                payload = bytes(packet)
                samples = opus_samples(payload)
                heard = samples if frame is not None else min(samples, end + skipped - position)
                yield _frame(payload, position, heard, skipped)
                position += samples

    def _resampled(self) -> "Iterator[av.AudioFrame]":
        import av

        resampler = av.AudioResampler(
            format="s16", layout=self._layout, rate=RATE_HZ, frame_size=FRAME_SAMPLES
        )
        for frame in self._container.decode(self._stream):
            frame.pts = None
            yield from resampler.resample(frame)
        yield from resampler.resample(None)

    @property
    def _layout(self) -> str:
        return "mono" if self.channels == 1 else "stereo"


def _open(path: str | Path) -> "InputContainer":
    import av

    try:
        return av.open(str(path))
    except (EOFError, ValueError):
        # Of one or two units of ADTS FFmpeg does not see what they are.
        if Path(path).suffix.lower() != ".aac":
            raise
        return av.open(str(path), format="aac")


def _first_audio(container: "InputContainer", path: str | Path) -> "AudioStream":
    if not container.streams.audio:
        raise ValueError(f"{path} has no audio")
    return container.streams.audio[0]


def _pre_skip(context: "AudioCodecContext") -> int:
    """Samples that a decoder of the Opus stream skips (RFC 7845 §5.1)."""
    head = context.extradata or b""
    return int.from_bytes(head[_PRE_SKIP], "little") if head.startswith(_OPUS_HEAD) else 0


def _is_aac_lc(context: "AudioCodecContext") -> bool:
    """HE-AAC is found by its decoder, which has read the beginning."""
    return (
        context.name == "aac"
        and context.profile == "LC"
        and context.frame_size in (0, AAC_SAMPLES)
        and context.sample_rate in AAC_RATES_HZ
    )


def _frame(
    payload: bytes, position: int, samples: int, skipped: int = 0, rate_hz: int = RATE_HZ
) -> MediaFrame:
    start_ns = samples_ns(position, rate_hz)
    duration_ns = samples_ns(position + samples, rate_hz) - start_ns
    return MediaFrame(payload, start_ns, start_ns - samples_ns(skipped, rate_hz), duration_ns)
