"""Segments that JoinSegments joined against the recording that was never cut."""

from collections.abc import Sequence

import numpy as np
import pytest

from roomtape.client import Client
from roomtape.v1 import file_pb2, media_pb2, segment_pb2
from tests.support.audio import noise, tone
from tests.support.hearing import check_files, packets_of, samples_of, select
from tests.support.stage import OPUS, PCM, Sound, Speaker, Stage
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="package")

MP3, OGG, WAV = media_pb2.CONTAINER_MP3, media_pb2.CONTAINER_OGG, media_pb2.CONTAINER_WAV
SECONDS = 3.12


async def test_what_is_joined_is_the_whole(client: Client) -> None:
    signals = {
        "speech": tone(300, SECONDS) + noise(SECONDS, seed=1, peak=300),
        "music": tone(700, SECONDS, 44_100, channels=2)
        + noise(SECONDS, 44_100, seed=2, peak=300, channels=2),
        "voice": noise(SECONDS, seed=3),
    }
    music = Sound(media_pb2.CODEC_PCM_S16LE, rate=44_100, channels=2)
    takes: list[Sequence[segment_pb2.Segment]] = []
    for room, segment_seconds in (("joined-cut", 1.0), ("joined-whole", None)):
        stage = Stage(client, room)
        speakers = [Speaker("speech", 0, PCM), Speaker("music", 0, music), Speaker("voice", 0, OPUS)]
        if segment_seconds is None:
            await stage.record(singles=[MP3, OGG, WAV])
        else:
            await stage.record(singles=[MP3, OGG, WAV], segment_seconds=segment_seconds)
        await stage.join(*speakers)
        await stage.play(SECONDS, signals)
        takes.append(await stage.end())
    cut, whole = takes
    files = [
        await _join(client, select(cut, container, user_id)[0])
        for user_id in signals
        for container in (MP3, OGG, WAV)
        if select(cut, container, user_id)
    ]
    assert len(files) == 7
    check_files(files)
    for user_id in ("speech", "music", "voice"):
        (uncut,), (file,) = select(whole, WAV, user_id), select(files, WAV, user_id)
        assert file.joined_segments == 4
        np.testing.assert_array_equal(samples_of(file), samples_of(uncut))
        (uncut,), (file,) = select(whole, MP3, user_id), select(files, MP3, user_id)
        assert (file.sample_count, file.encoder_delay_samples) == (
            uncut.sample_count,
            uncut.encoder_delay_samples,
        )
        expected = signals[user_id].astype(np.float64)
        if user_id != "voice":
            error = np.square(samples_of(file) - expected).mean()
            assert error < 0.02 * np.square(expected).mean()
    (uncut,), (file,) = select(whole, OGG, "voice"), select(files, OGG, "voice")
    assert packets_of(file) == packets_of(uncut)


async def _join(client: Client, first: segment_pb2.Segment) -> segment_pb2.Segment:
    """Joins a recording's files of the container of its first."""
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
