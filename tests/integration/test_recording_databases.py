"""The path of a recording, from its start to its files, with a kill in between, on each database."""

from functools import partial
from pathlib import Path

from roomtape.client import Client, Publisher
from roomtape.v1 import event_pb2, media_pb2, segment_pb2, task_pb2
from tests.support.hearing import assert_heard, select
from tests.support.server import running_server
from tests.support.stage import MS, OPUS, PCM, Speaker, Stage
from tests.support.waiting import eventually

WAV = media_pb2.CONTAINER_WAV
_JOIN_NS = 100 * MS


async def test_a_room_is_recorded_through_a_kill(database_url: str, tmp_path: Path) -> None:
    async with (
        running_server(tmp_path / "data", database_url=database_url) as server,
        Client(server.target) as client,
    ):
        stage, ada, ben = Stage(client, "room"), Speaker("ada", 700, PCM), Speaker("ben", 1200, OPUS)
        await stage.record(task_pb2.RECORD_MODE_SINGLE_AND_MIXED, singles=[WAV], mixes=[WAV])
        await stage.join(ada, ben)
        await stage.talk(1.0, ada, ben)
        await stage.settle()
        node = server.node()
        assert node is not None
        node.kill()
        for speaker in (ada, ben):
            await eventually(partial(_is_back, speaker.live()), "they are back")
        await stage.talk(1.0, ada, ben)
        segments = await stage.end()
        assert {each.state for each in segments} == {segment_pb2.SEGMENT_STATE_UPLOADED}
        for speaker in (ada, ben):
            heard = {speaker.hertz: (speaker.log, speaker.dbfs)}
            assert_heard(select(segments, WAV, speaker.user_id), heard, join_ns=_JOIN_NS)
        everybody = {each.hertz: (each.log, each.dbfs) for each in (ada, ben)}
        assert_heard(select(segments, WAV), everybody, join_ns=_JOIN_NS)
        events = await told_of(client, stage.task_id)
        assert [each.task_sequence for each in events] == list(range(1, len(events) + 1))
        kinds = [each.type for each in events]
        assert kinds[-1] == event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE
        assert event_pb2.EVENT_TYPE_INTERRUPTED in kinds
        for kind in (event_pb2.EVENT_TYPE_SEGMENT_STARTED, event_pb2.EVENT_TYPE_SEGMENT_UPLOADED):
            assert kinds.count(kind) == len(segments)
        await eventually(lambda: len(list((server.data_dir / "spool").glob("0*"))) == 1, "the spool is empty")


def _is_back(publisher: Publisher) -> bool:
    return publisher.statistics().streams == 2


async def told_of(client: Client, task_id: str) -> list[event_pb2.Event]:
    """All events of a task that has ended."""
    wanted = event_pb2.EventFilter(task_ids=[task_id])
    watch = client.watch_events("app", origin=event_pb2.WATCH_ORIGIN_OLDEST, filter=wanted)
    return [event async for event in watch]
