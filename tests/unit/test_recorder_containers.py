"""Files play exactly what was put in, wherever they are cut."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from roomtape_service.recording.containers.aac_files import finish_aac, finish_m4a, m4a_format
from roomtape_service.recording.containers.aac_writer import AacWriter
from roomtape_service.recording.containers.mp3 import MP3_DELAY, Mp3Writer, finish_mp3, frame_format
from roomtape_service.recording.containers.mp3_frames import (
    FrameFormat,
    frame_bytes,
    info_frame,
    nearest_bitrate,
    silent_frame,
)
from roomtape_service.recording.containers.ogg import OggWriter, finish_ogg
from roomtape_service.recording.containers.output import ContainerWriter
from roomtape_service.recording.containers.table import PAIRS, Method, pair
from roomtape_service.recording.containers.wav import WavWriter, finish_wav
from roomtape_service.recording.protocol import Container, TrackCodec
from tests.support.audio import (
    Samples,
    decode_file,
    ffmpeg_decode,
    find_tone,
    join,
    level_dbfs,
    noise,
    opus_decode,
    opus_packets,
    silence,
    tone,
)

MP3_RATES = [8_000, 16_000, 24_000, 32_000, 44_100, 48_000]


def write(writer: ContainerWriter, signal: Samples, rate: int) -> None:
    """In pieces of 20 ms."""
    for at in range(0, len(signal), rate // 50):
        writer.add_pcm(signal[at : at + rate // 50].tobytes())


def played(path: Path, channels: int) -> Samples:
    """What two decoders agree that a file plays."""
    decoded, _ = decode_file(path)
    theirs = ffmpeg_decode(path, channels)
    assert len(decoded) == len(theirs)
    return theirs


@pytest.mark.parametrize("rate", MP3_RATES)
@pytest.mark.parametrize(("channels", "bitrate"), [(1, 64_000), (2, 64_000), (1, 32_000), (2, 320_000)])
def test_mp3_plays_exactly_what_went_in(tmp_path: Path, rate: int, channels: int, bitrate: int) -> None:
    path = tmp_path / "a.mp3"
    signal = tone(440, 1.0, rate, channels=channels)[: rate - 123]
    writer = Mp3Writer(str(path), rate, channels, bitrate)
    write(writer, signal, rate)
    writer.end()
    assert writer.ready == len(signal)
    size = writer.cut(len(signal))
    assert finish_mp3(str(path), size, len(signal), frame_format(rate, channels, bitrate)) == len(signal)
    assert path.stat().st_size == size
    heard = played(path, channels)
    assert len(heard) == len(signal)
    # LAME turns everything down by 0.45 dB.
    assert level_dbfs(heard - (signal * 0.95).astype(np.int16)) < level_dbfs(signal) - 15


@pytest.mark.parametrize("rate", MP3_RATES)
def test_mp3_can_be_cut_wherever_it_is_ready(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.mp3"
    signal = noise(1.5, rate, peak=3000)
    writer = Mp3Writer(str(path), rate, 1, 64_000)
    for index, at in enumerate(range(0, len(signal), rate // 10)):
        writer.add_pcm(signal[at : at + rate // 10].tobytes())
        ready = writer.ready - index
        if ready <= 0:
            continue
        size = writer.cut(ready)
        copy = tmp_path / f"{index}.mp3"
        copy.write_bytes(path.read_bytes() + b"torn")
        finish_mp3(str(copy), size, ready, frame_format(rate, 1, 64_000))
        assert len(ffmpeg_decode(copy)) == ready
    # What encoders hold back is less than a third of a second.
    assert len(signal) - writer.ready < rate / 3


def test_mp3_does_not_encode_long_silence_and_stays_in_time(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    writer = Mp3Writer(str(path), 48_000, 1, 64_000)
    randomness = random.Random(1)
    parts: list[Samples] = []

    def add(signal: Samples) -> None:
        parts.append(signal)
        if signal.any():
            writer.add_pcm(signal.tobytes())
        else:
            writer.add_silence(len(signal))

    for hertz in (440, 700, 1000):
        for _ in range(randomness.randint(1, 30)):
            add(np.zeros(randomness.randint(1, 20_000), np.int16))
        add(tone(hertz, 0.5 + randomness.random()))
        writer.cut(writer.ready)
    for _ in range(12):
        add(silence(0.25))
    writer.end()
    signal = join(parts)
    size = writer.cut(len(signal))
    finish_mp3(str(path), size, len(signal), frame_format(48_000, 1, 64_000))
    heard = played(path, 1)
    assert len(heard) == len(signal)
    for hertz in (440, 700, 1000):
        [truth], [span] = find_tone(signal, hertz, 48_000), find_tone(heard, hertz, 48_000)
        assert (span.start, span.end) == pytest.approx((truth.start, truth.end), abs=0.006)
    assert level_dbfs(heard[-48_000:]) < -90


def test_mp3_of_nothing_but_silence(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    writer = Mp3Writer(str(path), 48_000, 1, 64_000)
    writer.add_silence(100_000)
    assert writer.ready > 100_000 - MP3_DELAY - 1152
    writer.end()
    size = writer.cut(100_000)
    finish_mp3(str(path), size, 100_000, frame_format(48_000, 1, 64_000))
    assert len(played(path, 1)) == 100_000


def test_mp3_frames_are_read_as_they_are_written() -> None:
    for rate in MP3_RATES:
        for kbps in (32, 64, 320):
            form = FrameFormat(rate, 2, nearest_bitrate(rate, kbps * 1000))
            assert frame_bytes(silent_frame(form)) == len(silent_frame(form))
            tag = info_frame(form, 10, 1000, 600)
            assert frame_bytes(tag) == len(tag)
            assert len(tag) == len(info_frame(form, 0, 0, 0))
    for junk in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xfb\x04\0"):
        with pytest.raises(ValueError, match="no frame header"):
            frame_bytes(junk)


def test_bit_rates_are_what_the_rate_can_have() -> None:
    assert nearest_bitrate(48_000, 320_000) == 320
    assert nearest_bitrate(24_000, 320_000) == 160
    assert nearest_bitrate(8_000, 320_000) == 64
    assert nearest_bitrate(48_000, 70_000) == 64
    assert nearest_bitrate(48_000, 1) == 32


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frame_ms", [5, 20, 60])
def test_ogg_has_every_packet_once_and_follows_the_timeline(
    tmp_path: Path, channels: int, frame_ms: int
) -> None:
    path = tmp_path / "a.ogg"
    packets = opus_packets(noise(2.0, channels=channels), frame_ms=frame_ms)
    randomness = random.Random(frame_ms)
    writer = OggWriter(str(path), channels, serial=7)
    timeline = 0
    expected: list[Samples] = []
    decoded = opus_decode(packets, channels)
    size = 48 * frame_ms
    for index, packet in enumerate(packets):
        if index % 10 == 5:
            gap = randomness.randint(1, 30_000)
            writer.add_silence(gap)
            timeline += gap
        writer.add_packet(packet, size, size)
        expected.append(decoded[index * size : (index + 1) * size])
        timeline += size
        if index % 7 == 6:
            writer.cut(timeline)
    total = writer.cut(timeline)
    granule = finish_ogg(str(path), total)
    assert 0 <= timeline - granule < 120
    heard = played(path, channels)
    assert len(heard) == granule
    assert finish_ogg(str(path), total) == granule


def test_ogg_is_cut_at_a_packet_or_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    packets = opus_packets(noise(0.2))
    writer = OggWriter(str(path), 1, serial=7)
    for packet in packets[:4]:
        writer.add_packet(packet, 960, 960)
    writer.add_silence(9600)
    writer.add_packet(packets[4], 960, 960)
    for samples in (960, 3 * 960, 4 * 960 + 1000, 4 * 960 + 9600, 5 * 960 + 9600):
        size = writer.cut(samples)
        copy = tmp_path / f"{samples}.ogg"
        copy.write_bytes(path.read_bytes() + b"OggS torn")
        granule = finish_ogg(str(copy), size)
        assert 0 <= samples - granule < 120
        assert len(played(copy, 1)) == granule


def test_ogg_holds_packets_of_any_legal_size(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    writer = OggWriter(str(path), 1, serial=7)
    # Padding makes them long; what they decode to is silence.
    sizes = [3, 254, 255, 256, 510, 5000, 60_000]
    for size in sizes:
        padding = size - 6
        head = bytes([255] * (padding // 255)) + bytes([padding % 255])
        packet = (b"\xfb\x41" + head + b"\xff\xfe").ljust(size, b"\0")
        writer.add_packet(packet if size > 10 else b"\xf8\xff\xfe", 960, 960)
    finish_ogg(str(path), writer.cut(len(sizes) * 960))
    assert b"OggS" in path.read_bytes()
    assert len(decode_file(path)[0]) == len(sizes) * 960


@pytest.mark.parametrize("channels", [1, 2])
def test_wav_is_the_samples(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "a.wav"
    signal = noise(0.5, 16_000, channels=channels)
    writer = WavWriter(str(path), 16_000, channels)
    write(writer, signal, 16_000)
    writer.add_silence(100)
    writer.cut(8100)
    # While it grows it can be read already.
    assert len(decode_file(path)[0]) == 8100
    size = writer.cut(8050)
    finish_wav(str(path), size, 8050, 16_000, channels)
    heard = played(path, channels)
    assert np.array_equal(heard[:8000], signal)
    assert not heard[8000:].any()
    assert len(heard) == 8050


def test_the_table_has_what_the_contract_allows_and_nothing_else() -> None:
    methods = {(codec, container): row.method for (codec, container), row in PAIRS.items()}
    encoded = dict.fromkeys((Container.MP3, Container.AAC, Container.M4A), Method.ENCODE)
    decoded = {**encoded, Container.WAV: Method.DECODE}
    passed = {Container.AAC: Method.PASS, Container.M4A: Method.PASS}
    wanted = {
        TrackCodec.OPUS: {**decoded, Container.OGG: Method.PASS},
        TrackCodec.PCM_S16LE: {**encoded, Container.WAV: Method.PASS},
        TrackCodec.AAC: {**decoded, **passed},
        TrackCodec.PCMU: decoded,
        TrackCodec.PCMA: decoded,
    }
    assert methods == {(codec, each): method for codec, row in wanted.items() for each, method in row.items()}
    assert [codec for codec in TrackCodec if pair(codec, Container.OGG)] == [TrackCodec.OPUS]


@pytest.mark.parametrize(
    "make", [WavWriter, lambda path, rate, channels: Mp3Writer(path, rate, channels, 64_000)]
)
def test_a_folder_that_is_gone_is_an_error(
    tmp_path: Path, make: Callable[[str, int, int], ContainerWriter]
) -> None:
    with pytest.raises(OSError, match="No such file"):
        make(str(tmp_path / "gone" / "a"), 48_000, 1)


@pytest.mark.parametrize("container", list(Container))
def test_files_grow_only_at_their_end(tmp_path: Path, container: Container) -> None:
    """Parts of a file can be in a store before it is complete: what the table calls live upload."""
    assert all(row.live_upload for row in PAIRS.values())
    path = tmp_path / "a"
    packets, signal = opus_packets(noise(2.0)), noise(2.0)
    writer: ContainerWriter
    match container:
        case Container.MP3:
            writer = Mp3Writer(str(path), 48_000, 1, 64_000)
        case Container.OGG:
            writer = OggWriter(str(path), 1, serial=7)
        case Container.WAV:
            writer = WavWriter(str(path), 48_000, 1)
        case Container.AAC | Container.M4A:
            writer = AacWriter(container, str(path), 48_000, 1, 64_000)
    halfway = b""
    for index in range(100):
        if container is Container.OGG:
            writer.add_packet(packets[index], 960, 960)
        else:
            writer.add_pcm(signal[index * 960 : (index + 1) * 960].tobytes())
        if index == 50:
            size = writer.cut(writer.ready)
            halfway = path.read_bytes()[:size]
    writer.end()
    size = writer.cut(96_000)
    match container:
        case Container.MP3:
            finish_mp3(str(path), size, 96_000, frame_format(48_000, 1, 64_000))
        case Container.OGG:
            finish_ogg(str(path), size)
        case Container.WAV:
            finish_wav(str(path), size, 96_000, 48_000, 1)
        case Container.AAC:
            finish_aac(str(path), size, 96_000, passes=False)
        case Container.M4A:
            finish_m4a(str(path), size, 96_000, m4a_format(48_000, 1, passes=False))
    first_part = 1024
    assert len(halfway) > 2 * first_part
    assert path.read_bytes()[first_part : len(halfway)] == halfway[first_part:]


def test_writers_take_what_the_table_gives_them_and_nothing_else(tmp_path: Path) -> None:
    wav, mp3 = (
        WavWriter(str(tmp_path / "a.wav"), 48_000, 1),
        Mp3Writer(str(tmp_path / "a.mp3"), 48_000, 1, 64_000),
    )
    ogg = OggWriter(str(tmp_path / "a.ogg"), 1, 1)
    for takes_pcm in (wav, mp3):
        with pytest.raises(TypeError, match="takes PCM"):
            takes_pcm.add_packet(b"\xf8", 960, 960)
    with pytest.raises(TypeError, match="takes packets"):
        ogg.add_pcm(bytes(1920))
    for writer in (wav, mp3, ogg):
        writer.file.close()
