"""The node is killed between the parts of an upload: what the store has is not sent again."""

import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from roomtape.client import Client
from roomtape.v1 import application_pb2, media_pb2, segment_pb2
from tests.faults.failpoint_file import FailpointFile
from tests.support.audio import noise
from tests.support.fault_proxy import Fault, Request, Rule, Upstream, fault_proxy
from tests.support.server import running_server
from tests.support.stage import Sound, Speaker, Stage
from tests.support.stores import BUCKET, weed_settings
from tests.support.waiting import eventually
from tests.support.weed import weed_server

pytestmark = pytest.mark.timeout(180)

PART_BYTES = 5 << 20
STEREO = Sound(media_pb2.CODEC_PCM_S16LE, channels=2)
# 192,000 bytes a second: four parts and a little.
SECONDS = 112.0
PERIOD_SECONDS = 4.0


async def test_a_killed_node_goes_on_with_the_next_part(tmp_path: Path) -> None:
    sent: Counter[int] = Counter()

    def count(request: Request) -> bool:
        if request.method == "PUT" and "partNumber=" in request.target:
            sent[int(request.target.split("partNumber=")[1].split("&")[0])] += 1
        return False

    failpoints = FailpointFile(tmp_path / "failpoints", PART_BYTES)
    (tmp_path / "weed").mkdir()
    with weed_server(tmp_path / "weed", BUCKET) as weed:
        port = int(weed.endpoint.rpartition(":")[2])
        data = tmp_path / "data"
        async with (
            fault_proxy(Upstream(port)) as proxy,
            running_server(data, failpoints_file=str(failpoints.path)) as server,
            Client(server.target) as client,
        ):
            proxy.rules.append(Rule(Fault.RESET, count))
            settings = weed_settings(weed, endpoint=f"http://127.0.0.1:{proxy.port}")
            application = application_pb2.Application(app_id="parts", storage=settings)
            await client.applications.CreateApplication(
                application_pb2.CreateApplicationRequest(application=application)
            )
            stage = Stage(client, "room", app_id="parts")
            await stage.record(singles=[media_pb2.CONTAINER_WAV])
            await stage.join(Speaker("ada", 440, STEREO))
            period = noise(PERIOD_SECONDS, STEREO.rate, channels=2)
            for _ in range(round(SECONDS / PERIOD_SECONDS)):
                await stage.play(PERIOD_SECONDS, {"ada": period})
            await eventually(lambda: _tagged(data) == {2, 3, 4}, "three parts are there while it is recorded")
            failpoints.arm({"name": "s3.part", "action": "kill", "at": 2})
            [file] = await stage.end()
    assert failpoints.killed_at() == {"s3.part"}
    assert file.state == segment_pb2.SEGMENT_STATE_UPLOADED
    assert file.size_bytes > 4 * PART_BYTES
    # Of the last two, one was on its way when the node was killed on its way to the other.
    assert set(sent) == {1, 2, 3, 4, 5}
    assert all(sent[number] == 1 for number in (2, 3, 4))
    assert max(sent.values()) <= 2


def _tagged(data: Path) -> set[int]:
    """The parts that the store has, as the database says."""
    with sqlite3.connect(f"file:{data}/roomtape.db?mode=ro", uri=True) as connection:
        found = {row[0] for row in connection.execute("SELECT number FROM parts WHERE tag <> ''")}
    connection.close()
    return found
