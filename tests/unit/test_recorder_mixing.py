"""Mixes: exact where one talks, the sum where several do, never clipped, and the same however they are cut."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomtape_service.recording.limiter import GRID
from roomtape_service.recording.mixing import Mixer, Voice
from roomtape_service.recording.resampling import MIX_RATE, MonoStream
from tests.support.audio import Samples, find_tone, join, noise, tone


def mixed(signals: list[tuple[int, Samples]], start: int, end: int, cuts: list[int]) -> Samples:
    """The mix of signals at their positions, made in blocks that end at `cuts`."""
    mixer, voices = Mixer(), []
    for position, signal in signals:
        voice = Voice()
        for at in range(0, len(signal), 960):
            voice.add(position + at, signal[at : at + 960], start)
        voices.append(voice)
    edges = [start, *sorted({cut // GRID * GRID for cut in cuts if start < cut // GRID * GRID < end}), end]
    blocks = [
        np.frombuffer(mixer.mix(voices, first, last, end), np.int16)
        for first, last in itertools.pairwise(edges)
    ]
    return join(blocks)


def test_one_voice_passes_untouched() -> None:
    signal = noise(1.0, peak=32767)
    signal[0], signal[1] = -32768, 32767
    assert np.array_equal(mixed([(0, signal)], 0, len(signal), [10_000]), signal)


def test_two_voices_add_up() -> None:
    one, two = noise(1.0, seed=1), noise(0.5, seed=2)
    heard = mixed([(0, one), (7_001, two)], 0, 48_000, [9600, 20_000])
    expected = one.astype(np.int32)
    expected[7_001 : 7_001 + len(two)] += two
    assert np.array_equal(heard, expected)


def test_loud_voices_are_turned_down_and_not_clipped() -> None:
    one, two = tone(440, 1.0, dbfs=-1), tone(700, 1.0, dbfs=-1)
    heard = mixed([(0, one), (0, two)], 0, 48_000, [12_000, 24_000, 36_000])
    assert np.count_nonzero((heard == 32767) | (heard == -32768)) < 200
    # Clipping would make tones that nobody sang: 3 · 440 Hz would be the loudest of them.
    assert not find_tone(heard[4800:], 3 * 440, 48_000, threshold_dbfs=-45)
    assert find_tone(heard, 440, 48_000)
    assert find_tone(heard, 700, 48_000)


def test_after_a_loud_moment_the_gain_comes_back() -> None:
    loud = tone(440, 0.2, dbfs=-0.5)
    quiet = noise(2.0, peak=1000)
    heard = mixed([(0, quiet), (0, loud), (0, loud)], 0, len(quiet), list(range(0, 96_000, 12_000)))
    assert np.array_equal(heard[48_000:], quiet[48_000:])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 30_000), max_size=6), st.integers(0, 500))
def test_the_mix_does_not_depend_on_the_blocks(cuts: list[int], start: int) -> None:
    signals = [(start, noise(0.5, seed=1, peak=30_000)), (start + 9_000, noise(0.3, seed=2, peak=30_000))]
    whole = mixed(signals, start, 30_000, [])
    assert np.array_equal(mixed(signals, start, 30_000, cuts), whole)
    assert len(whole) == 30_000 - start


def test_what_is_too_late_is_not_heard() -> None:
    gone, cut = Voice(), Voice()
    gone.add(0, noise(0.1), mixed=4800)
    cut.add(4000, noise(0.1), mixed=4800)
    assert gone.start is None
    assert (cut.start, cut.end) == (4800, 8800)


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 32_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2])
def test_other_rates_are_resampled_in_their_place(rate: int, channels: int) -> None:
    stream, voice = MonoStream(rate, channels), Voice()
    signal = tone(440, 1.0, rate, channels=channels)
    for spurt in (0, 3):
        for at in range(0, rate, rate // 50):
            for position, samples in stream.push(spurt * rate + at, signal[at : at + rate // 50].tobytes()):
                voice.add(position, samples, 0)
    for position, samples in stream.end_run():
        voice.add(position, samples, 0)
    heard = np.frombuffer(Mixer().mix([voice], 0, 4 * MIX_RATE, 4 * MIX_RATE), np.int16)
    spans = find_tone(heard, 440, MIX_RATE)
    assert [(round(span.start, 1), round(span.end, 1)) for span in spans] == [(0.0, 1.0), (3.0, 4.0)]
    for start in (0, 3 * MIX_RATE):
        whole = tone(440, 1.0, MIX_RATE)[480:-480].astype(np.float64)
        part = heard[start + 480 : start + MIX_RATE - 480].astype(np.float64)
        assert np.std(part - whole) < 0.03 * np.std(whole)


def test_a_mono_track_of_the_mix_s_rate_is_not_touched() -> None:
    signal = noise(0.1)
    [(position, samples)] = MonoStream(MIX_RATE, 1).push(77, signal.tobytes())
    assert position == 77
    assert np.array_equal(samples, signal)
