"""Clips are found in real encoded files where they are, and nowhere else."""

from pathlib import Path

import lameenc
import numpy as np
import pytest

from roomtape_service.demo.audio import RATE_HZ, Samples, decode_clip, decode_file
from roomtape_service.demo.clips import CLIPS
from roomtape_service.demo.correlate import find, fit_mix

BITRATE_KBPS = 64
OFFSETS_SECONDS = (0.25, 5.0, 11.0)


@pytest.fixture(scope="module")
def clips() -> list[Samples]:
    return [decode_clip(clip.path) for clip in CLIPS]


def encode_mp3(samples: Samples, path: Path) -> Path:
    """An MP3 without a tag, as encoders write it: it begins with the encoder's delay."""
    encoder = lameenc.Encoder()
    encoder.set_bit_rate(BITRATE_KBPS)
    encoder.set_in_sample_rate(RATE_HZ)
    encoder.set_out_sample_rate(RATE_HZ)
    encoder.set_channels(1)
    encoder.silence()
    pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16).tobytes()
    path.write_bytes(bytes(encoder.encode(pcm)) + bytes(encoder.flush()))
    return path


def mixed(clips: list[Samples], gains: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Samples:
    """The clips at their offsets."""
    length = max(
        round(offset * RATE_HZ) + len(clip) for offset, clip in zip(OFFSETS_SECONDS, clips, strict=True)
    )
    mix = np.zeros(length, np.float32)
    for offset, clip, gain in zip(OFFSETS_SECONDS, clips, gains, strict=True):
        start = round(offset * RATE_HZ)
        mix[start : start + len(clip)] += np.float32(gain) * clip
    return mix


@pytest.mark.parametrize("speaker", range(len(CLIPS)))
def test_a_clip_is_told_from_the_others(speaker: int, clips: list[Samples], tmp_path: Path) -> None:
    recorded = decode_file(encode_mp3(clips[speaker], tmp_path / "single.mp3"))
    for index, clip in enumerate(clips):
        match = find(recorded, clip)
        if index == speaker:
            assert match.coefficient > 0.99
            # LAME's delay and that of any decoder: 576 + 529 samples.
            assert match.lag_samples == 1105
            assert set(match.piece_lags) == {1105}
        else:
            assert match.coefficient < 0.2


def test_the_lag_is_exact_in_both_directions(clips: list[Samples]) -> None:
    clip = clips[0]
    late = find(np.concatenate((np.zeros(4801, np.float32), clip)), clip)
    assert (late.lag_samples, round(late.coefficient, 6)) == (4801, 1.0)
    cut = find(clip[960:], clip)
    assert cut.lag_samples == -960
    assert cut.coefficient > 0.99


def test_pauses_may_be_a_little_longer(clips: list[Samples]) -> None:
    clip = clips[0]
    seconds = 3
    pause = seconds * RATE_HZ + int(np.argmin(np.abs(clip[seconds * RATE_HZ : -RATE_HZ])))
    recorded = np.concatenate((clip[:pause], np.zeros(240, np.float32), clip[pause:]))
    match = find(recorded, clip)
    assert match.coefficient > 0.95
    assert match.displaced_seconds == pytest.approx(0.005)
    assert {match.piece_lags[0], match.piece_lags[-1]} == {0, 240}


def test_half_a_clip_is_not_the_clip(clips: list[Samples]) -> None:
    assert find(clips[0][: len(clips[0]) // 2], clips[0]).coefficient < 0.9


@pytest.mark.parametrize("length", [0, 1, RATE_HZ])
def test_silence_correlates_with_nothing(length: int, clips: list[Samples]) -> None:
    assert find(np.zeros(length, np.float32), clips[0]).coefficient == pytest.approx(0.0, abs=1e-9)


def test_a_mix_is_its_clips(clips: list[Samples], tmp_path: Path) -> None:
    recorded = decode_file(encode_mp3(mixed(clips), tmp_path / "mix.mp3"))
    matches = [find(recorded, clip) for clip in clips]
    for match, offset in zip(matches, OFFSETS_SECONDS, strict=True):
        assert match.lag_samples == round(offset * RATE_HZ) + 1105
    fit = fit_mix(recorded, clips, matches)
    assert fit.explained > 0.99
    assert all(0.9 < gain < 1.0 for gain in fit.gains)


@pytest.mark.parametrize("muted", range(len(CLIPS)))
def test_who_is_muted_has_no_volume(muted: int, clips: list[Samples], tmp_path: Path) -> None:
    gains = tuple(float(index != muted) for index in range(len(CLIPS)))
    recorded = decode_file(encode_mp3(mixed(clips, gains), tmp_path / "mix.mp3"))
    fit = fit_mix(recorded, clips, [find(recorded, clip) for clip in clips])
    assert abs(fit.gains[muted]) < 0.3
    assert all(gain > 0.85 for index, gain in enumerate(fit.gains) if index != muted)


def test_who_does_not_belong_into_a_mix_is_left_over(clips: list[Samples]) -> None:
    mix = mixed(clips)
    matches = [find(mix, clip) for clip in clips]
    assert fit_mix(mix, clips, matches).explained > 0.999
    assert fit_mix(mix, clips[:2], matches[:2]).explained < 0.8
    # Twice in it, the second time half a second later: an echo.
    echo = mix.copy()
    echo[RATE_HZ // 2 :] += mix[: -RATE_HZ // 2]
    assert fit_mix(echo, clips, matches).explained < 0.8
