"""Users who come for a moment, go, and come again: each in the next segment of their own files."""

import pytest

from roomtape.client import Client
from roomtape.v1 import media_pb2, task_pb2
from tests.support.hearing import assert_heard, check_files, select
from tests.support.stage import OPUS, PCM, Speaker, Stage

pytestmark = pytest.mark.asyncio(loop_scope="package")

WAV = media_pb2.CONTAINER_WAV


@pytest.mark.parametrize("is_live", [False, True], ids=["media", "live"])
async def test_who_comes_again_goes_on_in_their_files(client: Client, is_live: bool) -> None:
    stage = Stage(client, f"passers-by-{is_live}", is_live=is_live)
    speakers = [Speaker(f"user-{number}", 500 + 250 * number, (PCM, OPUS)[number % 2]) for number in range(4)]
    await stage.record(task_pb2.RECORD_MODE_SINGLE, singles=[WAV])
    for _ in range(2):
        for speaker in speakers:
            await stage.join(speaker)
            await stage.talk(0.4, speaker)
            await stage.leave(speaker)
    segments = await stage.end()
    check_files(segments)
    for speaker in speakers:
        files = select(segments, WAV, speaker.user_id)
        assert [each.segment_id for each in files] == [0, 1]
        # The second begins when they came again, with no silence for the time between.
        assert sum(each.duration.ToNanoseconds() for each in files) < 1_200_000_000
        assert_heard(files, {speaker.hertz: (speaker.log, speaker.dbfs)})
