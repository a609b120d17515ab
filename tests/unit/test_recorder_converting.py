"""Files of another rate or with other channels are as long as what was recorded, and nothing in them moves."""

import random
from pathlib import Path

import numpy as np
import pytest

from roomtape_service.recording.containers.aac_writer import AacWriter
from roomtape_service.recording.containers.converting import ConvertingWriter
from roomtape_service.recording.containers.output import ContainerWriter
from roomtape_service.recording.containers.wav import WavWriter, finish_wav
from roomtape_service.recording.vocabulary import Container
from tests.support.aac_files import finish, heard_of
from tests.support.audio import Samples, decode_file, find_tone, join, level_dbfs, silence, tone


def converting(path: Path, own: tuple[int, int], wanted: tuple[int, int]) -> ContainerWriter:
    return ConvertingWriter(WavWriter(str(path), *wanted), own, wanted)


def write(writer: ContainerWriter, signal: Samples, rate: int) -> None:
    """In pieces of 20 ms; silence, short or long, in one."""
    if not signal.any():
        writer.add_silence(len(signal))
        return
    for at in range(0, len(signal), rate // 50):
        writer.add_pcm(signal[at : at + rate // 50].tobytes())


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ((48_000, 1), (16_000, 1)),
        ((44_100, 2), (8_000, 1)),
        ((8_000, 1), (44_100, 2)),
        ((48_000, 2), (11_025, 2)),
    ],
)
def test_what_is_resampled_stays_where_it_was(
    tmp_path: Path, own: tuple[int, int], wanted: tuple[int, int]
) -> None:
    path, rate = tmp_path / "a.wav", wanted[0]
    randomness = random.Random(7)
    parts: list[Samples] = []
    for _ in range(12):
        parts.append(tone(700, 0.3 + randomness.random() / 10, own[0], channels=own[1]))
        parts.append(silence(randomness.random(), own[0], channels=own[1]))
    signal = join(parts)
    writer = converting(path, own, wanted)
    for part in parts:
        write(writer, part, own[0])
    writer.end()
    assert writer.ready == len(signal)
    samples = len(signal) * rate // own[0]
    finish_wav(str(path), writer.cut(len(signal)), samples, *wanted)
    heard, heard_rate = decode_file(path)
    assert (heard_rate, len(heard), heard.ndim) == (rate, samples, wanted[1])
    truth = find_tone(signal, 700, own[0])
    spans = find_tone(heard, 700, rate)
    assert len(spans) == 12
    for span, told in zip(spans, truth, strict=True):
        assert (span.start, span.end) == pytest.approx((told.start, told.end), abs=0.006)
        assert span.dbfs == pytest.approx(-12, abs=0.3)
    # It is early by less than a sample: against the tone itself, at its own place.
    at = round(truth[-1].start * rate) + rate // 20
    mono = heard if heard.ndim == 1 else heard[:, 0]
    stretch = slice(at, at + rate // 5)
    errors = [
        level_dbfs(mono[stretch] - resampled(signal, own[0], rate, early)[stretch])
        for early in (0, 0.25, 0.5, 0.75, 1)
    ]
    assert min(errors) < -25


def resampled(signal: Samples, own: int, rate: int, early: float) -> Samples:
    """By interpolation, which does for a tone."""
    mono = signal if signal.ndim == 1 else signal[:, 0]
    places = (np.arange(len(mono) * rate // own) + early) * own / rate
    return np.rint(np.interp(places, np.arange(len(mono)), mono)).astype(np.int16)


def test_it_can_be_cut_wherever_it_is_ready(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    signal = tone(440, 1.0, 44_100)
    writer = converting(path, (44_100, 1), (16_000, 1))
    last = 0
    for at in range(0, len(signal), 4_410):
        writer.add_pcm(signal[at : at + 4_410].tobytes())
        ready = writer.ready
        assert last < ready <= at + 4_410
        assert at + 4_410 - ready < 441
        size = writer.cut(ready)
        assert size == 44 + ready * 16_000 // 44_100 * 2
        assert path.stat().st_size >= size
        last = ready


@pytest.mark.parametrize("container", [Container.AAC, Container.M4A])
def test_channels_are_added_and_mixed(tmp_path: Path, container: Container) -> None:
    path = tmp_path / f"a.{container.lower()}"
    left = tone(500, 0.5, 16_000)
    signal = np.stack([left, np.zeros_like(left)], axis=1)
    inner = AacWriter(container, str(path), 16_000, 1, 64_000)
    writer = ConvertingWriter(inner, (16_000, 2), (16_000, 1))
    writer.add_pcm(signal.tobytes())
    writer.end()
    finish(inner, path, writer.cut(len(left)), len(left), 16_000, 1, passes=False)
    heard = heard_of(path, container, len(left))
    assert level_dbfs(heard - left // 2) < level_dbfs(left) - 30
    with pytest.raises(TypeError, match="takes PCM"):
        writer.add_packet(b"\x01", 1024, 1024)
