"""A server whose spool's disk is not mounted gives up nothing: it does not start, and goes on when the disk is back."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from roomtape.client import Client
from roomtape.v1 import media_pb2, room_pb2, segment_pb2, task_pb2
from roomtape_service.spool.identity import claim_spool, spool_problem
from tests.integration.bad_input.content import noise_frame, samples_of
from tests.integration.bad_input.witness import Voice, path_of, record
from tests.support.server import running_server
from tests.support.waiting import eventually

ROOM = "r"
EPOCH = "0123456789abcdef"


async def test_a_server_without_its_spool_refuses_and_loses_nothing(tmp_path: Path) -> None:
    async with running_server(tmp_path / "data") as server, Client(server.target) as client:
        task_id = await record(client, ROOM, room_pb2.ROOM_CLOCK_MEDIA, [media_pb2.CONTAINER_WAV])
        voice = Voice(
            client, ROOM, "u", media_pb2.CODEC_PCM_S16LE, partial(noise_frame, np.random.default_rng(1))
        )
        try:
            await voice.start()
            await eventually(lambda: voice.acknowledged > 60, "a second is safe")
            await server.kill()
            spool, unmounted = server.data_dir / "spool", server.data_dir / "unmounted"
            spool.rename(unmounted)
            with pytest.raises(RuntimeError, match="nowhere else"):
                await server.start()
            spool.rmdir()
            unmounted.rename(spool)
            await server.start()
            await voice.goes_on()
            await voice.stop()
        finally:
            await voice.aclose()
        await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id="app", task_id=task_id))
        described = await client.wait_until_complete("app", task_id)
        segments = sorted(described.segments, key=lambda each: each.segment_id)
        assert {each.state for each in segments} == {segment_pb2.SEGMENT_STATE_UPLOADED}
        joined = np.concatenate([samples_of(path_of(each)) for each in segments])
        sent = np.frombuffer(b"".join(voice.frames), np.int16)
        assert np.array_equal(joined, sent)


def test_a_spool_knows_its_database(tmp_path: Path) -> None:
    assert spool_problem(tmp_path, EPOCH, awaits_files=False) is None
    assert "nowhere else" in str(spool_problem(tmp_path, EPOCH, awaits_files=True))
    # A spool of before there was a mark.
    (tmp_path / "00000000000000000001-0-1").mkdir()
    assert spool_problem(tmp_path, EPOCH, awaits_files=True) is None
    claim_spool(tmp_path, EPOCH)
    (tmp_path / "00000000000000000001-0-1").rmdir()
    assert spool_problem(tmp_path, EPOCH, awaits_files=True) is None
    assert "another database" in str(spool_problem(tmp_path, EPOCH[::-1], awaits_files=False))
    claim_spool(tmp_path, EPOCH[::-1])
    assert spool_problem(tmp_path, EPOCH[::-1], awaits_files=True) is None
