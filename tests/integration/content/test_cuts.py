"""Segments cut at a set length: joined they are what was published, nothing lost and nothing twice."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from roomtape.client import Client
from roomtape.v1 import media_pb2, segment_pb2, task_pb2
from tests.support.audio import noise, tone
from tests.support.hearing import check_files, joined, packets_of, select
from tests.support.stage import OPUS, PCM, SECOND, Sound, Speaker, Stage

pytestmark = pytest.mark.asyncio(loop_scope="package")

MP3, OGG, WAV = media_pb2.CONTAINER_MP3, media_pb2.CONTAINER_OGG, media_pb2.CONTAINER_WAV
SECONDS = 4.32


def assert_adjacent(files: Sequence[segment_pb2.Segment], count: int, longest_seconds: float) -> None:
    assert [each.segment_id for each in files] == list(range(count))
    for before, after in itertools.pairwise(files):
        assert abs(before.end_time.ToNanoseconds() - after.start_time.ToNanoseconds()) <= 1
    assert all(each.duration.ToNanoseconds() <= longest_seconds * SECOND for each in files)


async def test_singles_add_up(client: Client) -> None:
    speech = Speaker("speech", 0, Sound(media_pb2.CODEC_PCM_S16LE, rate=16_000))
    music = Speaker("music", 0, Sound(media_pb2.CODEC_PCM_S16LE, rate=44_100, channels=2))
    voice = Speaker("voice", 0, Sound(media_pb2.CODEC_OPUS, frame_ms=60))
    choir = Speaker("choir", 0, Sound(media_pb2.CODEC_OPUS, channels=2))
    signals = {
        "speech": tone(300, SECONDS, 16_000) + noise(SECONDS, 16_000, seed=1, peak=300),
        "music": tone(800, SECONDS, 44_100, channels=2)
        + noise(SECONDS, 44_100, seed=2, peak=300, channels=2),
        "voice": noise(SECONDS, seed=3),
        "choir": noise(SECONDS, seed=4, channels=2),
    }
    stage = Stage(client, "cuts")
    await stage.record(singles=[MP3, OGG, WAV], segment_seconds=1)
    await stage.join(speech, music, voice, choir)
    await stage.play(SECONDS, signals)
    segments = await stage.end()
    check_files(segments)
    for speaker in (speech, music, voice, choir):
        wav, mp3 = (select(segments, container, speaker.user_id) for container in (WAV, MP3))
        assert_adjacent(wav, 5, 1)
        assert [each.start_time for each in mp3] == [each.start_time for each in wav]
        assert [each.sample_count for each in mp3] == [each.sample_count for each in wav]
        assert len(joined(mp3)) == len(joined(wav)) == round(SECONDS * speaker.sound.rate)
        assert sum(each.statistics.recorded for each in wav) == len(speaker.frames)
    for speaker in (speech, music):
        published = signals[speaker.user_id]
        np.testing.assert_array_equal(joined(select(segments, WAV, speaker.user_id)), published)
        heard = joined(select(segments, MP3, speaker.user_id)).astype(np.int32)
        error = np.square(heard - published, dtype=np.float64).mean()
        assert error < 0.01 * np.square(published, dtype=np.float64).mean()
    for speaker in (voice, choir):
        ogg = select(segments, OGG, speaker.user_id)
        assert_adjacent(ogg, 5, 1)
        assert [packet for each in ogg for packet in packets_of(each)] == speaker.frames


async def test_a_mix_adds_up(client: Client) -> None:
    left, right = Speaker("left", 0, PCM), Speaker("right", 0, PCM)
    signals = {"left": noise(SECONDS, seed=5), "right": noise(SECONDS, seed=6)}
    stage = Stage(client, "mixcuts")
    await stage.record(task_pb2.RECORD_MODE_MIXED, mixes=[MP3, WAV], segment_seconds=1.5)
    await stage.join(left, right)
    await stage.play(SECONDS, signals)
    segments = await stage.end()
    check_files(segments)
    wav = select(segments, WAV)
    assert_adjacent(wav, 3, 1.5)
    np.testing.assert_array_equal(joined(wav), signals["left"] + signals["right"])
    assert len(joined(select(segments, MP3))) == len(signals["left"])


async def test_each_container_alone(client: Client) -> None:
    for container, name in ((MP3, "onlymp3"), (OGG, "onlyogg"), (WAV, "onlywav")):
        ada = Speaker("ada", 440, OPUS)
        stage = Stage(client, name)
        await stage.record(singles=[container], segment_seconds=2)
        await stage.join(ada)
        await stage.talk(2.6, ada)
        segments = await stage.end()
        check_files(segments)
        assert [each.container for each in segments] == [container, container]
        assert [each.sample_count for each in segments] == [96_000, 28_800]
