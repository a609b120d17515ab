"""Joined files against what the segments hold: sample for sample, packet for packet."""

import hashlib
import io
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from roomtape_service.recording.aac import access_unit, silent_unit
from roomtape_service.recording.containers.mp3 import MP3_DELAY, Mp3Writer, finish_mp3, frame_format
from roomtape_service.recording.containers.ogg import OggWriter, finish_ogg
from roomtape_service.recording.containers.wav import WavWriter, finish_wav
from roomtape_service.recording.joining.__main__ import join
from roomtape_service.recording.joining.job import (
    JoinFailure,
    JoinFault,
    JoinJob,
    JoinResult,
    JoinSource,
    decode_answer,
    encode_line,
)
from roomtape_service.recording.vocabulary import Container
from tests.support.aac_files import encoded_aac, passed_aac
from tests.support.audio import Samples, aac_units, decode_file, noise, opus_packets, tone

RATE = 48_000
BITRATE = 64_000


def _source(data: bytes, at: int, samples: int) -> JoinSource:
    return JoinSource(len(data), hashlib.sha256(data).hexdigest(), at, samples)


def _job(
    folder: Path,
    container: Container,
    files: Sequence[bytes],
    places: Sequence[tuple[int, int]],
    *,
    rate: int = RATE,
    channels: int = 1,
) -> JoinJob:
    sources = tuple(_source(data, *place) for data, place in zip(files, places, strict=True))
    end = sum(places[-1])
    return JoinJob(container, str(folder / "joined"), rate, channels, BITRATE, end, sources)


def _wav(path: Path, signal: Samples, rate: int) -> bytes:
    channels = 1 if signal.ndim == 1 else signal.shape[1]
    writer = WavWriter(str(path), rate, channels)
    writer.add_pcm(signal.tobytes())
    finish_wav(str(path), writer.cut(len(signal)), len(signal), rate, channels)
    return path.read_bytes()


def _mp3(path: Path, signal: Samples, rate: int) -> bytes:
    channels = 1 if signal.ndim == 1 else signal.shape[1]
    writer = Mp3Writer(str(path), rate, channels, BITRATE)
    writer.add_pcm(signal.tobytes())
    writer.end()
    form = frame_format(rate, channels, BITRATE)
    finish_mp3(str(path), writer.cut(len(signal)), len(signal), form)
    return path.read_bytes()


def _ogg(path: Path, packets: Sequence[bytes]) -> bytes:
    writer = OggWriter(str(path), 1, 7)
    for packet in packets:
        writer.add_packet(packet, 960, 960)
    finish_ogg(str(path), writer.cut(writer.ready))
    return path.read_bytes()


def _packets(path: str) -> list[bytes]:
    with av.open(path) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def _joined(job: JoinJob, files: Sequence[bytes]) -> JoinResult:
    result = join(JoinJob.read(encode_line(job)), io.BytesIO(b"".join(files)))
    assert isinstance(result, JoinResult)
    assert decode_answer(encode_line(result)) == result
    data = Path(job.path).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (result.size_bytes, result.sha256)
    return result


@pytest.mark.parametrize(("rate", "channels"), [(48_000, 1), (44_100, 2), (16_000, 1)])
def test_wav_is_the_whole_sample_for_sample(tmp_path: Path, rate: int, channels: int) -> None:
    whole = noise(3.1, rate, channels=channels)
    cuts = [0, rate, 2 * rate + 7, len(whole)]
    parts = [whole[start:end] for start, end in itertools.pairwise(cuts)]
    files = [_wav(tmp_path / f"{index}", part, rate) for index, part in enumerate(parts)]
    places = [(start, len(part)) for start, part in zip(cuts, parts, strict=False)]
    job = _job(tmp_path, Container.WAV, files, places, rate=rate, channels=channels)
    assert _joined(job, files).samples == len(whole)
    np.testing.assert_array_equal(decode_file(job.path)[0], whole)


def test_a_hole_in_wav_is_zeros(tmp_path: Path) -> None:
    parts = [noise(0.5, seed=1), noise(0.5, seed=2)]
    files = [_wav(tmp_path / f"{index}", part, RATE) for index, part in enumerate(parts)]
    hole = 11 * RATE + 3
    job = _job(tmp_path, Container.WAV, files, [(0, 24_000), (24_000 + hole, 24_000)])
    assert _joined(job, files).samples == 48_000 + hole
    heard = decode_file(job.path)[0]
    np.testing.assert_array_equal(heard, np.concatenate([parts[0], np.zeros(hole, np.int16), parts[1]]))


def test_ogg_has_the_same_packets(tmp_path: Path) -> None:
    packets = opus_packets(noise(4))
    cuts = [packets[:50], packets[50:120], packets[120:]]
    files = [_ogg(tmp_path / f"{index}", each) for index, each in enumerate(cuts)]
    places = [(0, 48_000), (48_000, 67_200), (115_200, 960 * len(cuts[2]))]
    job = _job(tmp_path, Container.OGG, files, places)
    result = _joined(job, files)
    assert result.samples == 960 * len(packets)
    assert _packets(job.path) == packets


def test_a_hole_in_ogg_lasts_as_long(tmp_path: Path) -> None:
    packets = opus_packets(tone(440, 2))
    files = [_ogg(tmp_path / "a", packets[:50]), _ogg(tmp_path / "b", packets[50:])]
    hole = 3 * RATE + 250
    second = 960 * len(packets[50:])
    job = _job(tmp_path, Container.OGG, files, [(0, 48_000), (48_000 + hole, second)])
    result = _joined(job, files)
    # Silence comes in packets of 2.5 ms.
    assert 0 <= 48_000 + hole + second - result.samples < 120
    held = _packets(job.path)
    assert held[:50] == packets[:50]
    assert held[-len(packets[50:]) :] == packets[50:]


@pytest.mark.parametrize(("rate", "channels"), [(48_000, 1), (44_100, 2), (16_000, 1)])
def test_mp3_sounds_as_the_whole_and_is_as_long(tmp_path: Path, rate: int, channels: int) -> None:
    hole = rate // 2 + 11
    whole = tone(300, 6, rate, channels=channels)
    middle = 3 * rate + 5
    whole[middle : middle + hole] = 0
    cuts = [(0, rate), (rate, 2 * rate + 5), (middle + hole, len(whole) - middle - hole)]
    files = [_mp3(tmp_path / f"{start}", whole[start : start + length], rate) for start, length in cuts]
    job = _job(tmp_path, Container.MP3, files, cuts, rate=rate, channels=channels)
    result = _joined(job, files)
    assert (result.samples, result.encoder_delay) == (len(whole), MP3_DELAY)
    heard = decode_file(job.path)[0]
    assert len(heard) == len(whole)
    error = np.square(heard.astype(np.float64) - whole).mean()
    assert error < 0.01 * np.square(whole, dtype=np.float64).mean()


@pytest.mark.parametrize("container", list(Container))
def test_a_source_that_differs_is_named(tmp_path: Path, container: Container) -> None:
    signal = noise(0.5)
    kinds = {
        Container.WAV: lambda path: _wav(path, signal, RATE),
        Container.MP3: lambda path: _mp3(path, signal, RATE),
        Container.OGG: lambda path: _ogg(path, opus_packets(signal)),
        Container.AAC: lambda path: passed_aac(path, Container.AAC, aac_units(signal)),
        Container.M4A: lambda path: passed_aac(path, Container.M4A, aac_units(signal)),
    }
    files = [kinds[container](tmp_path / f"{index}") for index in range(3)]
    places = [(index * 24_000, 24_000) for index in range(3)]
    job = _job(tmp_path, container, files, places)
    for damaged in (
        files[1][:-5] + bytes([files[1][-5] ^ 1]) + files[1][-4:],
        bytes(len(files[1])),
    ):
        result = join(job, io.BytesIO(files[0] + damaged + files[2]))
        assert isinstance(result, JoinFailure)
        assert (result.fault, result.source) == (JoinFault.SOURCE_DIFFERS, 1)
        Path(job.path).unlink()
    with pytest.raises(EOFError):
        join(job, io.BytesIO(files[0] + files[1][:100]))


def test_a_disk_that_takes_nothing_is_told(tmp_path: Path) -> None:
    files = [_wav(tmp_path / "a", noise(0.1), RATE)]
    job = replace(_job(tmp_path, Container.WAV, files, [(0, 4800)]), path=str(tmp_path / "no" / "file"))
    result = join(job, io.BytesIO(files[0]))
    assert isinstance(result, JoinFailure)
    assert result.fault is JoinFault.DISK


@pytest.mark.parametrize("container", [Container.AAC, Container.M4A])
def test_aac_that_passed_has_the_same_units(tmp_path: Path, container: Container) -> None:
    units = aac_units(noise(2))
    parts: list[list[bytes | int]] = [[*units[:30], 700, *units[30:40]], [*units[40:60]], [300, *units[60:]]]
    files = [passed_aac(tmp_path / f"{index}", container, part) for index, part in enumerate(parts)]
    lengths = [sum(item if isinstance(item, int) else 1024 for item in part) for part in parts]
    hole = 3 * RATE + 250
    places = [
        (0, lengths[0]),
        (lengths[0], lengths[1]),
        (lengths[0] + lengths[1] + hole, lengths[2]),
    ]
    job = _job(tmp_path, container, files, places)
    result = _joined(job, files)
    whole = sum(lengths) + hole
    assert result.encoder_delay == 0
    assert result.samples == whole if container is Container.M4A else abs(result.samples - whole) < 1024
    held = [access_unit(each, RATE, 1) for each in _packets(job.path)]
    assert [each for each in held if each != silent_unit(1)] == units
    assert abs(len(held) * 1024 - whole) < 1024


@pytest.mark.parametrize("container", [Container.AAC, Container.M4A])
@pytest.mark.parametrize(("rate", "channels"), [(48_000, 1), (44_100, 2)])
def test_aac_that_was_encoded_sounds_as_the_whole_and_is_as_long(
    tmp_path: Path, container: Container, rate: int, channels: int
) -> None:
    hole = 4 * rate + 11
    whole = tone(300, 8, rate, channels=channels)
    middle = 2 * rate + 5
    whole[middle : middle + hole] = 0
    cuts = [(0, rate), (rate, rate + 5), (middle + hole, len(whole) - middle - hole)]
    files = [
        encoded_aac(tmp_path / f"{start}", container, whole[start : start + length], rate, BITRATE)
        for start, length in cuts
    ]
    job = _job(tmp_path, container, files, cuts, rate=rate, channels=channels)
    job = replace(job, sources=tuple(replace(each, encoder_delay=1024) for each in job.sources))
    result = _joined(job, files)
    assert (result.samples, result.encoder_delay) == (len(whole), 1024)
    heard = decode_file(job.path)[0]
    heard = heard if container is Container.M4A else heard[1024 : 1024 + len(whole)]
    assert len(heard) == len(whole)
    error = np.square(heard.astype(np.float64) - whole).mean()
    assert error < 0.001 * np.square(whole, dtype=np.float64).mean()


@pytest.mark.parametrize("container", [Container.AAC, Container.M4A])
def test_aac_of_both_kinds_is_encoded_again(tmp_path: Path, container: Container) -> None:
    """A user who published AAC came again with Opus."""
    signal = tone(300, 1)
    units = aac_units(signal)
    files = [
        passed_aac(tmp_path / "a", container, units),
        encoded_aac(tmp_path / "b", container, signal, RATE, BITRATE),
    ]
    first = len(units) * 1024
    job = _job(tmp_path, container, files, [(0, first), (first, len(signal))])
    job = replace(job, sources=(job.sources[0], replace(job.sources[1], encoder_delay=1024)))
    result = _joined(job, files)
    assert (result.samples, result.encoder_delay) == (first + len(signal), 1024)
    heard = decode_file(job.path)[0][0 if container is Container.M4A else 1024 :]
    error = heard[first : first + len(signal)].astype(np.float64) - signal
    assert np.square(error).mean() < 0.001 * np.square(signal, dtype=np.float64).mean()
