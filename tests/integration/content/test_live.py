"""A live room in real time: what was said lies where the publishers' own clock says."""

import pytest

from roomtape.client import Client
from roomtape.v1 import media_pb2, task_pb2
from tests.support.hearing import assert_heard, check_files, hear, select, spoken_by
from tests.support.stage import MS, OPUS, Sound, Speaker, Stage

pytestmark = pytest.mark.asyncio(loop_scope="package")

MP3, OGG, WAV = media_pb2.CONTAINER_MP3, media_pb2.CONTAINER_OGG, media_pb2.CONTAINER_WAV


async def test_a_live_room(client: Client) -> None:
    """With the vendor's rules, under which a pause of speech is none of its breaks."""
    ada = Speaker("ada", 500, OPUS, -20)
    ben = Speaker("ben", 1000, Sound(media_pb2.CODEC_PCM_S16LE, rate=44_100), -23)
    eve = Speaker("eve", 1500, OPUS, -20)
    stage = Stage(client, "live", app_id="gme", is_live=True)
    await stage.record(
        task_pb2.RECORD_MODE_SINGLE_AND_MIXED, singles=[OGG, WAV], mixes=[MP3, WAV], block=["eve"]
    )
    await stage.join(ada, eve)
    await stage.talk(0.8, ada, eve)
    await stage.talk(0.3)
    await stage.join(ben)
    await stage.talk(0.6, ada, ben)
    await stage.talk(1.2)
    await stage.talk(0.6, ben, eve)
    await stage.leave(ben)
    await stage.talk(0.4, ada)
    segments = await stage.end()
    check_files(segments)
    worst = 0
    for speaker in (ada, ben):
        for container in (OGG, WAV) if speaker is ada else (WAV,):
            files = select(segments, container, speaker.user_id)
            assert [each.segment_id for each in files] == [0]
            worst = max(worst, assert_heard(files, spoken_by([speaker])))
    for container in (MP3, WAV):
        worst = max(worst, assert_heard(select(segments, container), spoken_by([ada, ben])))
    assert not hear(segments, eve.hertz)
    assert {each.user_id for each in segments} == {"ada", "ben", ""}
    print(f"worst error {worst / MS:.1f} ms")
