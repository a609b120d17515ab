"""Rooms on a MEDIA clock whose media is of years before or after they were opened."""

import sqlite3
from contextlib import closing

import pytest

from roomtape.client import Client
from roomtape.v1 import event_pb2, media_pb2, task_pb2
from tests.support.hearing import assert_heard, check_files, select
from tests.support.server import ServerProcess
from tests.support.stage import OPUS, PCM, SECOND, Speaker, Stage

pytestmark = pytest.mark.asyncio(loop_scope="package")

WAV = media_pb2.CONTAINER_WAV
_YEARS = {"1999": 915_148_800 * SECOND + 1, "2099": 4_070_908_800 * SECOND + 1}


@pytest.mark.parametrize("year", _YEARS)
async def test_media_of_another_year_lies_where_it_was_captured(
    server: ServerProcess, client: Client, year: str
) -> None:
    first_ns = _YEARS[year]
    stage, ada, ben = Stage(client, year), Speaker("ada", 700, PCM), Speaker("ben", 1200, OPUS)
    await stage.record(task_pb2.RECORD_MODE_SINGLE_AND_MIXED, singles=[WAV], mixes=[WAV])
    stage.now_ns = first_ns
    await stage.join(ada)
    await stage.talk(0.5, ada)
    await stage.join(ben)
    await stage.talk(0.5, ada, ben)
    assert epoch_ns(server, year) == first_ns
    segments = await stage.end()
    check_files(segments)
    starts = {each.user_id: each.start_time.ToNanoseconds() - first_ns for each in segments}
    assert starts == {"": 0, "ada": 0, "ben": SECOND // 2}
    assert [each.segment_id for each in segments] == [0, 0, 0]
    for speaker in (ada, ben):
        heard = {speaker.hertz: (speaker.log, speaker.dbfs)}
        assert_heard(select(segments, WAV, speaker.user_id), heard)
    assert_heard(select(segments, WAV), {each.hertz: (each.log, each.dbfs) for each in (ada, ben)})
    assert event_pb2.EVENT_TYPE_GAP not in await types(client, stage.task_id)


async def test_who_comes_with_older_media_lies_before_the_first(client: Client) -> None:
    stage, ada, ben = Stage(client, "backwards"), Speaker("ada", 700, PCM), Speaker("ben", 1200, OPUS)
    await stage.record(singles=[WAV])
    later_ns = stage.now_ns
    await stage.join(ada)
    await stage.talk(0.5, ada)
    await stage.leave(ada)
    stage.now_ns = later_ns - 3600 * SECOND
    await stage.join(ben)
    await stage.talk(0.5, ben)
    segments = await stage.end()
    check_files(segments)
    starts = {each.user_id: each.start_time.ToNanoseconds() - later_ns for each in segments}
    assert starts == {"ada": 0, "ben": -3600 * SECOND}


def epoch_ns(server: ServerProcess, room_id: str) -> int:
    """From when the workers of a room count samples."""
    with closing(sqlite3.connect(f"file:{server.data_dir / 'roomtape.db'}?mode=ro", uri=True)) as connection:
        [(found,)] = connection.execute("SELECT epoch_ns FROM rooms WHERE room_id = ?", (room_id,))
    assert isinstance(found, int)
    return found


async def types(client: Client, task_id: str) -> set[event_pb2.EventType.ValueType]:
    """Of all that was told of a task."""
    wanted = event_pb2.EventFilter(task_ids=[task_id])
    watch = client.watch_events("app", origin=event_pb2.WATCH_ORIGIN_OLDEST, filter=wanted)
    return {event.type async for event in watch}
