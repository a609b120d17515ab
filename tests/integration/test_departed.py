"""Who leaves a room on a MEDIA clock waits for nobody, and nothing of them is lost."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from roomtape.client import Client, RetrySettings
from roomtape.v1 import media_pb2, room_pb2, task_pb2
from tests.support.audio import tone
from tests.support.hearing import assert_heard, check_files, select
from tests.support.server import running_server
from tests.support.stage import MS, OPUS, PCM, TRACK, Sound, Speaker, Stage
from tests.support.waiting import eventually

WAV = media_pb2.CONTAINER_WAV
BOTH = task_pb2.RECORD_MODE_SINGLE_AND_MIXED
_GOODBYE_SECONDS = 5.0


@pytest.mark.parametrize(
    ("victim", "sound"), [(None, PCM), ("worker", PCM), ("node", OPUS)], ids=["nobody", "worker", "node"]
)
async def test_a_goodbye_waits_for_no_other_participant(
    tmp_path: Path, victim: str | None, sound: Sound
) -> None:
    async with running_server(tmp_path / "data") as server, Client(server.target) as client:
        stage, ada, ben = Stage(client, "room"), Speaker("ada", 700, sound), Speaker("ben", 1200, PCM)
        await stage.record(BOTH, singles=[WAV], mixes=[WAV])
        await stage.join(ada, ben)
        await stage.talk(0.4, ada, ben)
        end_ns = await ada.say(sound.frames(tone(ada.hertz, 1.0, dbfs=ada.dbfs)), stage.now_ns, is_live=False)
        ada.live().advance(TRACK, end_ns)
        async with asyncio.timeout(_GOODBYE_SECONDS):
            await ada.live().close()
        assert ada.live().statistics().unacknowledged_frames == 0
        stage.speakers.remove(ada)
        departed = server.data_dir / "spool" / ".departed"
        assert len(list(departed.iterdir())) == 1
        if victim is not None:
            process = server.node() if victim == "node" else server.workers()[0]
            assert process is not None
            process.kill()
        await stage.talk(1.6, ben)
        if victim == "node":
            await eventually(lambda: ben.live().statistics().streams == 2, "ben has found the new node")
        segments = await stage.end()
        if victim is None:
            check_files(segments)
        assert_heard(select(segments, WAV, "ada"), {ada.hertz: (ada.log, ada.dbfs)})
        mix = select(segments, WAV)
        assert_heard(mix, {each.hertz: (each.log, each.dbfs) for each in (ada, ben)})
        assert abs(sum(each.duration.ToNanoseconds() for each in mix) - 2000 * MS) < 40 * MS
        await eventually(lambda: not list(departed.iterdir()), "nothing is kept that is in the mix")


async def test_who_comes_back_to_be_told_again_finds_all_that_they_said(tmp_path: Path) -> None:
    async with running_server(tmp_path / "data") as server, Client(server.target) as client:
        stage, ada, ben = Stage(client, "room"), Speaker("ada", 700, PCM), Speaker("ben", 1200, PCM)
        await stage.record(task_pb2.RECORD_MODE_MIXED, mixes=[WAV])
        await stage.join(ada, ben)
        await stage.talk(0.4, ada, ben)
        await ada.say(PCM.frames(tone(ada.hertz, 1.0, dbfs=ada.dbfs)), stage.now_ns, is_live=False)
        closing = asyncio.create_task(ada.live().close())
        await eventually(lambda: ada.live().statistics().unsent_frames == 0, "all is sent")
        departed = server.data_dir / "spool" / ".departed"
        await eventually(lambda: any(departed.glob("*.frames")), "what she said is kept")
        node = server.node()
        assert node is not None
        node.kill()
        async with asyncio.timeout(30):
            await closing
        stage.speakers.remove(ada)
        await stage.talk(1.2, ben)
        await eventually(lambda: ben.live().statistics().streams == 2, "ben has found the new node")
        segments = await stage.end()
        assert_heard(segments, {each.hertz: (each.log, each.dbfs) for each in (ada, ben)})


async def test_a_mix_that_has_nothing_yet_gets_all_after_a_kill(tmp_path: Path) -> None:
    """The user's own file has the beginning already, so two readings of the track begin in different places."""
    async with running_server(tmp_path / "data") as server, Client(server.target) as client:
        stage, ada, ben = Stage(client, "room"), Speaker("ada", 700, PCM), Speaker("ben", 1200, PCM)
        await stage.record(BOTH, singles=[WAV], mixes=[WAV])
        await stage.join(ada, ben)
        end_ns = await ada.say(PCM.frames(tone(ada.hertz, 1.0, dbfs=ada.dbfs)), stage.now_ns, is_live=False)
        ada.live().advance(TRACK, end_ns)
        request = task_pb2.DescribeRecordInfoRequest(app_id="app", task_id=stage.task_id)

        async def has_begun() -> bool:
            return any(each.user_id for each in (await client.recording.DescribeRecordInfo(request)).segments)

        await eventually(has_begun, "the beginning is in her own file")
        await server.kill()
        await server.start()
        await eventually(lambda: ada.live().statistics().streams == 2, "ada has found the new node")
        await stage.talk(1.2, ben)
        segments = await stage.end()
        assert_heard(select(segments, WAV, "ada"), {ada.hertz: (ada.log, ada.dbfs)})
        assert_heard(select(segments, WAV), {each.hertz: (each.log, each.dbfs) for each in (ada, ben)})


async def test_what_was_kept_outlives_a_start_that_could_not_take_up_its_task(tmp_path: Path) -> None:
    patient = RetrySettings(attempts=100, max_seconds=0.5)
    async with (
        running_server(tmp_path / "data") as server,
        Client(server.target, retry=patient) as client,
    ):
        stage, ada, ben = Stage(client, "room"), Speaker("ada", 700, PCM), Speaker("ben", 1200, PCM)
        await stage.record(task_pb2.RECORD_MODE_MIXED, mixes=[WAV])
        await stage.join(ada, ben)
        await stage.talk(0.4, ada, ben)
        await stage.settle()
        await ada.say(PCM.frames(tone(ada.hertz, 1.0, dbfs=ada.dbfs)), stage.now_ns, is_live=False)
        await ada.live().close()
        stage.speakers.remove(ada)
        await server.kill()
        await server.start()
        await server.kill()
        found = _set_resume(server.data_dir, "{")
        await server.start()
        assert "task_not_restored" in server.log_path.read_text("utf-8")
        await server.kill()
        _set_resume(server.data_dir, found)
        await server.start()
        request = room_pb2.DescribeRoomRequest(app_id="app", room_id="room")

        async def is_back() -> bool:
            return all(
                each.connected for each in (await client.rooms.DescribeRoom(request)).room.participants
            )

        await eventually(is_back, "ben has found the new node")
        await stage.talk(1.2, ben)
        segments = await stage.end()
        assert_heard(segments, {each.hertz: (each.log, each.dbfs) for each in (ada, ben)})


def _set_resume(data_dir: Path, resume: str) -> str:
    """Writes where the only recording goes on; returns what was there. The database is in use by nobody."""
    with closing(sqlite3.connect(next(data_dir.glob("*.db")))) as database:
        ((before,),) = database.execute("SELECT resume FROM segments WHERE segment_id = 0").fetchall()
        database.execute("UPDATE segments SET resume = ? WHERE segment_id = 0", (resume,))
        database.commit()
    return str(before)
