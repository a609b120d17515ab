"""AAC and M4A files play exactly what was put in, wherever they are cut."""

from pathlib import Path

import av
import numpy as np
import pytest

from roomtape_service.recording.aac import AAC_RATES, access_unit, adts_frame_bytes, adts_header, silent_unit
from roomtape_service.recording.containers.aac_writer import AacWriter
from roomtape_service.recording.containers.units import aac_bitrate
from roomtape_service.recording.opus import CorruptPacketError
from roomtape_service.recording.vocabulary import Container
from tests.support.aac_files import UNIT, encoded_aac, finish, heard_of, passed_aac
from tests.support.audio import (
    Samples,
    aac_decode,
    aac_units,
    decode_file,
    ffmpeg_decode,
    find_tone,
    join,
    level_dbfs,
    noise,
    silence,
    tone,
)

CONTAINERS = [Container.AAC, Container.M4A]


def suffix(container: Container) -> str:
    return f"a.{container.lower()}"


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    ("rate", "channels", "bitrate"), [(48_000, 1, 64_000), (44_100, 2, 128_000), (8_000, 1, 16_000)]
)
def test_it_plays_exactly_what_went_in(
    tmp_path: Path, container: Container, rate: int, channels: int, bitrate: int
) -> None:
    path = tmp_path / suffix(container)
    signal = sweep(rate, channels)[: rate - 123]
    encoded_aac(path, container, signal, rate, bitrate)
    heard = heard_of(path, container, len(signal), channels)
    assert level_dbfs(heard - signal) < level_dbfs(signal) - 30
    # Not a sample early or late.
    assert find_lag(heard.reshape(len(heard), -1)[:, 0], signal.reshape(len(signal), -1)[:, 0]) == 0
    decoded, decoded_rate = decode_file(path)
    assert decoded_rate == rate
    if container is Container.M4A:
        assert np.array_equal(decoded, heard)


def sweep(rate: int, channels: int) -> Samples:
    """A second from 200 to 1,200 Hz."""
    times = np.arange(rate) / rate
    wave = np.rint(8000 * np.sin(2 * np.pi * (200 + 500 * times) * times)).astype(np.int16)
    return wave if channels == 1 else np.repeat(wave[:, None], channels, axis=1)


def find_lag(heard: Samples, signal: Samples) -> int:
    """By how many samples, up to half of a unit, something is late."""
    reach = range(-UNIT // 2, UNIT // 2)
    middle = signal[UNIT:-UNIT].astype(np.float64)
    errors = [np.square(heard[UNIT + lag : len(heard) - UNIT + lag] - middle).mean() for lag in reach]
    return reach[int(np.argmin(errors))]


@pytest.mark.parametrize("rate", AAC_RATES)
def test_every_rate_can_be_encoded_and_says_so(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.m4a"
    signal = tone(300, 0.4, rate)
    encoded_aac(path, Container.M4A, signal, rate, 320_000)
    decoded, decoded_rate = decode_file(path)
    assert (decoded_rate, len(decoded)) == (rate, len(signal))
    assert level_dbfs(decoded - signal) < level_dbfs(signal) - 30


def test_units_are_no_longer_than_decoders_take() -> None:
    assert aac_bitrate(48_000, 1, 64_000) == 64_000
    assert aac_bitrate(8_000, 1, 64_000) == 48_000
    assert aac_bitrate(8_000, 2, 320_000) == 96_000


@pytest.mark.parametrize("container", CONTAINERS)
def test_it_can_be_cut_wherever_it_is_ready(tmp_path: Path, container: Container) -> None:
    path = tmp_path / suffix(container)
    signal = noise(1.0, peak=3000)
    writer = AacWriter(container, str(path), 48_000, 1, 64_000)
    for index, at in enumerate(range(0, len(signal), 9_600)):
        writer.add_pcm(signal[at : at + 9_600].tobytes())
        ready = writer.ready - index
        size = writer.cut(ready)
        copy = tmp_path / f"{index}{path.suffix}"
        copy.write_bytes(path.read_bytes() + b"torn")
        for _ in range(2):
            assert finish(writer, copy, size, ready, 48_000, 1, passes=False) == ready
            heard_of(copy, container, ready)
        assert ready > at + 9_600 - 4 * UNIT


def test_m4a_plays_while_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    signal = tone(440, 2.0)
    writer = AacWriter(Container.M4A, str(path), 48_000, 1, 64_000)
    for at in range(0, len(signal), 12_000):
        writer.add_pcm(signal[at : at + 12_000].tobytes())
        writer.cut(writer.ready)
        if at >= 24_000:
            heard = ffmpeg_decode(path)
            assert 0 <= len(heard) - writer.ready < UNIT
            assert level_dbfs(heard[: writer.ready] - signal[: writer.ready]) < -40
    writer.file.close()


@pytest.mark.parametrize("container", CONTAINERS)
def test_long_silence_is_not_encoded_and_stays_in_time(tmp_path: Path, container: Container) -> None:
    path = tmp_path / suffix(container)
    writer = AacWriter(container, str(path), 48_000, 1, 64_000)
    parts: list[Samples] = []
    for hertz, pause in ((440, 4.0003), (700, 0.0101), (1000, 7.5)):
        parts += [tone(hertz, 0.5), silence(pause)]
        writer.add_pcm(parts[-2].tobytes())
        for at in range(0, len(parts[-1]), 12_000):
            writer.add_silence(len(parts[-1][at : at + 12_000]))
        writer.cut(writer.ready)
    writer.end()
    signal = join(parts)
    size = writer.cut(len(signal))
    finish(writer, path, size, len(signal), 48_000, 1, passes=False)
    heard = heard_of(path, container, len(signal))
    for hertz in (440, 700, 1000):
        [truth], [span] = find_tone(signal, hertz, 48_000), find_tone(heard, hertz, 48_000)
        assert (span.start, span.end) == pytest.approx((truth.start, truth.end), abs=0.006)
    assert level_dbfs(heard - signal) < -45
    assert level_dbfs(heard[-48_000:]) < -90
    # Where nobody speaks there are a few bytes a unit, in fragments of a quarter of a second.
    assert path.stat().st_size < 30_000


@pytest.mark.parametrize("channels", [1, 2])
def test_silent_units_are_silent(channels: int) -> None:
    heard = aac_decode([silent_unit(channels)] * 5, channels=channels)
    assert len(heard) == 5 * UNIT
    assert not heard.any()
    loud = aac_units(noise(0.2, channels=channels))
    heard = aac_decode([*loud, *[silent_unit(channels)] * 5], channels=channels)
    assert not heard[(len(loud) + 1) * UNIT :].any()


@pytest.mark.parametrize("container", CONTAINERS)
def test_units_that_came_are_there_once_and_where_they_were(tmp_path: Path, container: Container) -> None:
    path = tmp_path / suffix(container)
    units = aac_units(noise(1.0))
    items: list[bytes | int] = [*units[:10], 700, *units[10:12], 1_000, *units[12:20], 50_000, *units[20:]]
    passed_aac(path, container, items)
    samples = len(units) * UNIT + 51_700
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(audio=0) if packet.size]
    held = [access_unit(bytes(packet), 48_000, 1) for packet in packets]
    silent = silent_unit(1)
    assert [each for each in held if each != silent] == units
    # Silence is made of whole units, and never a whole one too many or too few.
    assert abs(len(held) * UNIT - samples) < UNIT
    if container is Container.M4A:
        starts = {unit: packet.pts for unit, packet in zip(held, packets, strict=True)}
        expected = 0
        for item in items:
            assert isinstance(item, int) or starts[item] == expected
            expected += item if isinstance(item, int) else UNIT
        last = packets[-1]
        assert last.pts is not None
        assert last.pts + (last.duration or 0) == samples


@pytest.mark.parametrize("container", CONTAINERS)
def test_units_that_came_can_be_cut_between_and_in_silence(tmp_path: Path, container: Container) -> None:
    path = tmp_path / suffix(container)
    units = aac_units(noise(0.3))
    writer = AacWriter(container, str(path), 48_000, 1, None)
    writer.add_silence(300)
    for unit in units[:4]:
        writer.add_packet(unit, UNIT, UNIT)
    writer.add_silence(9_000)
    writer.add_packet(units[4], UNIT, UNIT)
    for samples in (
        300,
        300 + UNIT,
        300 + 4 * UNIT,
        300 + 4 * UNIT + 1_500,
        9_300 + 4 * UNIT,
        9_300 + 5 * UNIT,
    ):
        size = writer.cut(samples)
        copy = tmp_path / f"{samples}{path.suffix}"
        copy.write_bytes(path.read_bytes() + b"\xff\xf1torn")
        played = finish(writer, copy, size, samples, 48_000, 1, passes=True)
        assert played == samples if container is Container.M4A else abs(played - samples) < UNIT
        assert abs(len(ffmpeg_decode(copy)) - samples) < UNIT


def test_headers_of_adts_are_taken_off() -> None:
    [unit, *_] = aac_units(tone(440, 0.1, 44_100, channels=2), 44_100)
    frame = adts_header(44_100, 2, len(unit)) + unit
    assert adts_frame_bytes(frame) == len(frame)
    assert access_unit(unit, 44_100, 2) == unit
    assert access_unit(frame, 44_100, 2) == unit
    # With a CRC the header is two bytes longer.
    summed = adts_header(44_100, 2, len(unit) + 2)
    summed = bytes((summed[0], summed[1] & ~1)) + summed[2:] + b"\0\0" + unit
    assert access_unit(summed, 44_100, 2) == unit


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"", "of 0 bytes"),
        (b"\x21", "of 1 bytes"),
        (b"\x01" * 9_000, "of 9000 bytes"),
        (b"\xff", "cut off"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", "no ADTS header"),
        (adts_header(48_000, 1, 10) + bytes(9), "of 17 bytes in 16"),
        (adts_header(44_100, 1, 10) + bytes(10), "44100 Hz and 1 channels on a track of 48000"),
        (adts_header(48_000, 2, 10) + bytes(10), "2 channels on a track of 48000 Hz and 1"),
        (adts_header(48_000, 1, 10)[:6] + b"\xfd" + bytes(10), "several access units"),
        (b"\xff\xf1\x0c" + adts_header(48_000, 1, 10)[3:] + bytes(10), "not LC"),
        (b"\xe0\x00\x00", "without sound"),
        (silent_unit(2), "of 2 channels on a track of 1"),
    ],
)
def test_what_is_no_unit_of_its_track_is_told(payload: bytes, what: str) -> None:
    with pytest.raises(CorruptPacketError, match=what):
        access_unit(payload, 48_000, 1)


@pytest.mark.parametrize("container", CONTAINERS)
def test_writers_take_what_they_were_made_for(tmp_path: Path, container: Container) -> None:
    encoding = AacWriter(container, str(tmp_path / "a"), 48_000, 1, 64_000)
    passing = AacWriter(container, str(tmp_path / "b"), 48_000, 1, None)
    with pytest.raises(TypeError, match="takes PCM"):
        encoding.add_packet(silent_unit(1), UNIT, UNIT)
    with pytest.raises(TypeError, match="takes packets"):
        passing.add_pcm(bytes(1920))
    for writer in (encoding, passing):
        writer.file.close()


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_is_not_ours_is_not_finished(tmp_path: Path, container: Container) -> None:
    path = tmp_path / suffix(container)
    data = passed_aac(path, container, aac_units(noise(0.2)))
    writer = AacWriter(container, str(tmp_path / "other"), 48_000, 1, None)
    path.write_bytes(data[:700] + bytes(1_000))
    with pytest.raises(ValueError, match=r"fragment|ADTS"):
        finish(writer, path, 1_700, UNIT, 48_000, 1, passes=True)
