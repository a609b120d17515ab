"""Whose tone is in which file, from when to when, and how loud."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from roomtape.client import Client
from roomtape.v1 import media_pb2, segment_pb2, task_pb2
from tests.support.hearing import assert_heard, check_files, hear, select, spoken_by
from tests.support.stage import MS, OPUS, Sound, Speaker, Stage

pytestmark = pytest.mark.asyncio(loop_scope="package")

MP3, OGG, WAV = media_pb2.CONTAINER_MP3, media_pb2.CONTAINER_OGG, media_pb2.CONTAINER_WAV
BOTH = task_pb2.RECORD_MODE_SINGLE_AND_MIXED

PCM_16 = Sound(media_pb2.CODEC_PCM_S16LE, rate=16_000)
PCM_44_STEREO = Sound(media_pb2.CODEC_PCM_S16LE, rate=44_100, channels=2)
OPUS_STEREO_10 = Sound(media_pb2.CODEC_OPUS, channels=2, frame_ms=10)


async def test_joins_leaves_and_returns(client: Client) -> None:
    ada = Speaker("ada", 500, OPUS, -20)
    ben = Speaker("ben", 900, PCM_16, -17)
    cleo = Speaker("cleo", 1300, PCM_44_STEREO, -23)
    dora = Speaker("dora", 1700, OPUS_STEREO_10, -26)
    stage = Stage(client, "joins")
    await stage.record(BOTH, singles=[MP3, OGG, WAV], mixes=[MP3, WAV])
    await stage.join(ada)
    await stage.talk(0.6, ada)
    await stage.join(ben)
    await stage.talk(0.4, ada, ben)
    await stage.talk(0.3)
    await stage.talk(0.5, ben)
    await stage.join(cleo)
    await stage.talk(0.6, ada, cleo)
    await stage.leave(ben)
    await stage.join(dora)
    await stage.talk(0.4, dora, cleo)
    await stage.talk(0.3)
    await stage.join(ben)
    await stage.talk(0.5, ada, ben, cleo, dora)
    await stage.leave(ada, cleo)
    await stage.talk(0.4, dora, ben)
    everybody = [ada, ben, cleo, dora]
    segments = await stage.end()
    check_files(segments)

    worst = 0
    for speaker in everybody:
        containers = [MP3, OGG, WAV] if speaker.sound.codec == media_pb2.CODEC_OPUS else [MP3, WAV]
        assert {each.container for each in segments if each.user_id == speaker.user_id} == set(containers)
        for container in containers:
            files = select(segments, container, speaker.user_id)
            assert [each.segment_id for each in files] == ([0, 1] if speaker is ben else [0])
            worst = max(worst, assert_heard(files, spoken_by([speaker])))
            for other in everybody:
                assert other is speaker or not hear(files, other.hertz)
    for container in (MP3, WAV):
        mix = select(segments, container)
        assert [each.segment_id for each in mix] == [0]
        worst = max(worst, assert_heard(mix, spoken_by(everybody)))
    print(f"worst error {worst / MS:.1f} ms")
    check_names(await described(client, stage), segments)


async def described(client: Client, stage: Stage) -> task_pb2.Task:
    request = task_pb2.DescribeRecordInfoRequest(app_id=stage.app_id, task_id=stage.task_id)
    return (await client.recording.DescribeRecordInfo(request)).task


def check_names(task: task_pb2.Task, segments: list[segment_pb2.Segment]) -> None:
    """As the vendor's: the start of the task in UTC+8."""
    started = datetime.fromtimestamp(task.start_time.seconds, UTC) + timedelta(hours=8)
    stamp = re.escape(started.strftime("%Y-%m-%d-%H-%M-%S"))
    for each in segments:
        extension = {MP3: "mp3", OGG: "ogg", WAV: "wav"}[each.container]
        name = rf"{stamp}_{each.segment_id}_audio\.{extension}"
        if each.kind == segment_pb2.RECORDING_KIND_SINGLE:
            pattern = rf"{task.app_id}_{task.room_id}_{each.user_id}/{name}"
        else:
            pattern = rf"{task.app_id}_{task.room_id}/{task.task_id}_{name}"
        assert re.fullmatch(pattern, each.object_key), each.object_key
        assert each.url.endswith(each.object_key)
    assert len({each.object_key for each in segments}) == len(segments)
