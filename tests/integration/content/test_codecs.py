"""AAC and G.711 in, AAC and M4A out: who was heard when, and how loud."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from roomtape.client import Client
from roomtape.v1 import file_pb2, media_pb2, segment_pb2, task_pb2
from tests.client import media
from tests.support.audio import ffmpeg_decode, find_tone, noise, tone
from tests.support.hearing import (
    assert_heard,
    check_files,
    packets_of,
    path_of,
    samples_of,
    select,
    spoken_by,
)
from tests.support.stage import MS, OPUS, PCM, SECOND, START_NS, Sound, Speaker, Stage
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="package")

AAC, M4A = media_pb2.CONTAINER_AAC, media_pb2.CONTAINER_M4A
MP3, OGG, WAV = media_pb2.CONTAINER_MP3, media_pb2.CONTAINER_OGG, media_pb2.CONTAINER_WAV
UNIT = 1024
JOINED_SECONDS = 3.2


async def test_aac_goes_into_m4a(client: Client) -> None:
    stage = Stage(client, "aac")
    await stage.record(singles=[M4A])
    ada = Speaker("ada", 440, Sound(media_pb2.CODEC_AAC))
    await stage.join(ada)
    await stage.talk(1.024, ada)
    files = await stage.end()
    check_files(files)
    [file] = files
    assert (file.codec, file.sample_rate_hz, file.channels) == (media_pb2.CODEC_AAC, 48_000, 1)
    assert (file.sample_count, file.encoder_delay_samples) == (48 * UNIT, 0)
    assert file.object_key.endswith(".m4a")
    assert packets_of(file) == ada.frames
    heard = await asyncio.to_thread(ffmpeg_decode, path_of(file))
    [span] = find_tone(heard, 440, 48_000)
    assert (span.start, span.end) == pytest.approx((0, 1.024), abs=0.03)
    assert span.dbfs == pytest.approx(-20, abs=0.5)


async def test_everybody_is_in_every_container(client: Client) -> None:
    stage = Stage(client, "codecs")
    await stage.record(
        task_pb2.RECORD_MODE_SINGLE_AND_MIXED,
        singles=[MP3, OGG, WAV, AAC, M4A],
        mixes=[MP3, WAV, AAC, M4A],
    )
    opus, pcm = Speaker("opus", 300, OPUS), Speaker("pcm", 500, PCM)
    units = Speaker("aac", 800, Sound(media_pb2.CODEC_AAC, rate=44_100, channels=2))
    mu_law = Speaker("pcmu", 1_100, Sound(media_pb2.CODEC_PCMU, rate=8_000))
    a_law = Speaker("pcma", 1_700, Sound(media_pb2.CODEC_PCMA, rate=8_000, channels=2))
    speakers = [opus, pcm, units, mu_law, a_law]
    await stage.join(*speakers)
    await stage.talk(1.0, opus, units)
    await stage.talk(0.7, mu_law)
    await stage.talk(1.0, pcm, a_law, units)
    files = await stage.end()
    check_files(files)
    for speaker in speakers:
        for container in (MP3, WAV, AAC, M4A):
            assert_heard(select(files, container, speaker.user_id), spoken_by([speaker]))
    assert [each.user_id for each in files if each.container == OGG] == ["opus"]
    for container in (MP3, WAV, AAC, M4A):
        assert_heard(select(files, container), spoken_by(speakers))
    passed = select(files, M4A, "aac") + select(files, AAC, "aac")
    assert {(each.encoder_delay_samples, each.sample_rate_hz, each.channels) for each in passed} == {
        (0, 44_100, 2)
    }
    assert {each.encoder_delay_samples for each in select(files, M4A) + select(files, AAC, "pcmu")} == {UNIT}


async def test_a_file_of_aac_is_recorded_as_it_is(client: Client, tmp_path: Path) -> None:
    path = media.write(tmp_path / "clip.m4a", "aac", media.tone(440, 1.5, 44_100, 2), 44_100)
    stage = Stage(client, "aac-file")
    await stage.record(singles=[WAV, M4A])
    await client.publish_file(path, "app", "aac-file", "ada", realtime=False, start_time_ns=START_NS)
    files = await stage.end()
    check_files(files)
    (m4a,), (wav,) = select(files, M4A, "ada"), select(files, WAV, "ada")
    assert packets_of(m4a) == media.packets(path)
    # What its encoder put before the sound lies before the file began in the room.
    begun_ns = wav.start_time.ToNanoseconds() - START_NS
    assert begun_ns == pytest.approx(-UNIT * SECOND / 44_100, abs=MS)
    for each in (m4a, wav):
        [span] = find_tone(samples_of(each), 440, 44_100)
        assert span.start + begun_ns / SECOND == pytest.approx(0, abs=0.02)
        assert span.end + begun_ns / SECOND == pytest.approx(1.5, abs=0.02)


async def test_files_have_the_rate_and_channels_that_were_ordered(client: Client) -> None:
    stage = Stage(client, "profile")
    output = task_pb2.OutputSettings(
        single_containers=[MP3, OGG, WAV, AAC, M4A],
        mixed_containers=[WAV, M4A],
        audio_sample_rate_hz=16_000,
        audio_channels=2,
        audio_bitrate_bps=48_000,
    )
    output.segment_duration.FromSeconds(2)
    await stage.record(task_pb2.RECORD_MODE_SINGLE_AND_MIXED, output=output)
    opus, units = Speaker("opus", 300, OPUS), Speaker("aac", 800, Sound(media_pb2.CODEC_AAC, rate=44_100))
    await stage.join(opus, units)
    await stage.talk(2.4, opus)
    await stage.talk(1.0, units)
    files = await stage.end()
    check_files(files)
    passed = {("opus", OGG): (48_000, 1), ("aac", AAC): (44_100, 1), ("aac", M4A): (44_100, 1)}
    for each in files:
        wanted = passed.get((each.user_id, each.container), (16_000, 2))
        assert (each.sample_rate_hz, each.channels) == wanted, each
    for container in (MP3, WAV, AAC, M4A):
        for speaker in (opus, units):
            assert_heard(select(files, container, speaker.user_id), spoken_by([speaker]))
    for container in (WAV, M4A):
        mixed = select(files, container)
        assert len(mixed) == 2
        assert_heard(mixed, spoken_by([opus, units]))
        whole = await _join(client, mixed[0])
        check_files([whole])
        assert (whole.sample_rate_hz, whole.channels) == (16_000, 2)
        assert abs(whole.sample_count - sum(each.sample_count for each in mixed)) <= 1
        assert_heard([whole], spoken_by([opus, units]))


async def test_what_is_joined_is_the_whole(client: Client) -> None:
    signals = {
        "voice": tone(300, JOINED_SECONDS) + noise(JOINED_SECONDS, seed=1, peak=300),
        "units": tone(700, JOINED_SECONDS) + noise(JOINED_SECONDS, seed=2, peak=300),
    }
    takes: list[Sequence[segment_pb2.Segment]] = []
    for room, segment_seconds in (("aac-cut", 1.0), ("aac-whole", None)):
        stage = Stage(client, room)
        await stage.record(singles=[AAC, M4A], segment_seconds=segment_seconds)
        await stage.join(Speaker("voice", 0, PCM), Speaker("units", 0, Sound(media_pb2.CODEC_AAC)))
        await stage.play(JOINED_SECONDS, signals)
        takes.append(await stage.end())
    cut, whole = takes
    ordered = [select(cut, container, user_id)[0] for user_id in signals for container in (AAC, M4A)]
    files = [await _join(client, each) for each in ordered]
    check_files(files)
    for file in files:
        (uncut,) = select(whole, file.container, file.user_id)
        assert (file.sample_count, file.encoder_delay_samples) == (
            uncut.sample_count,
            uncut.encoder_delay_samples,
        )
        if file.user_id == "units":
            # No packet is missing or doubled.
            assert packets_of(file) == packets_of(uncut)
            continue
        expected = signals["voice"].astype(np.float64)
        error = np.square(samples_of(file) - expected).mean()
        assert error < 0.02 * np.square(expected).mean()


async def _join(client: Client, first: segment_pb2.Segment) -> segment_pb2.Segment:
    ordered = await client.files.JoinSegments(
        file_pb2.JoinSegmentsRequest(app_id="app", recording_id=first.recording_id, container=first.container)
    )
    request = file_pb2.GetFileRequest(app_id="app", file_id=ordered.file.file_id)
    files: list[segment_pb2.Segment] = []

    async def is_joined() -> bool:
        files[:] = [(await client.files.GetFile(request)).file]
        return files[0].state == segment_pb2.SEGMENT_STATE_UPLOADED

    await eventually(is_joined, "the segments are joined")
    return files[0]
