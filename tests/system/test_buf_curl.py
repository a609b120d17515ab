"""`buf curl`, which knows the contract alone, starts, watches and stops a recording on the running server."""

import asyncio
import base64
import json
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.rpc import error_details_pb2

from roomtape.client import Client
from roomtape.v1 import ingest_pb2, media_pb2
from tests.support.audio import tone
from tests.support.server import ServerProcess, running_server

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]

ROOT = Path(__file__).parents[2]
WAIT_SECONDS = 60

Message = dict[str, Any]


@dataclass(frozen=True)
class Curl:
    """Calls a server; `options` say where the contract comes from."""

    target: str
    options: tuple[str, ...]

    async def start(self, method: str, request: Message) -> asyncio.subprocess.Process:
        """A call that runs."""
        beside = Path(sys.executable).with_name("buf")
        buf = str(beside) if beside.exists() else shutil.which("buf")
        assert buf is not None, "buf is not installed"
        return await asyncio.create_subprocess_exec(
            *(buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *self.options),
            *("-d", json.dumps(request), f"http://{self.target}/roomtape.v1.{method}"),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, method: str, request: Message) -> Message:
        """The reply."""
        code, out, err = await self._run(method, request)
        assert code == 0, err
        reply: Message = json.loads(out)
        return reply

    async def error(self, method: str, request: Message) -> Message:
        """The error that the server answers."""
        code, _, err = await self._run(method, request)
        assert code != 0
        error: Message = json.loads(err)
        return error

    async def _run(self, method: str, request: Message) -> tuple[int, str, str]:
        process = await self.start(method, request)
        async with asyncio.timeout(WAIT_SECONDS):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    async with running_server(tmp_path_factory.mktemp("buf") / "data") as server:
        yield server


@pytest.fixture(params=["proto", "reflection"])
def curl(request: pytest.FixtureRequest, server: ServerProcess) -> Curl:
    schema = ("--schema", "proto") if request.param == "proto" else ()
    return Curl(server.target, schema)


async def test_it_starts_watches_and_stops(curl: Curl) -> None:
    app, room = {"appId": "app"}, f"buf-{len(curl.options)}"
    created = await curl("RoomService/CreateRoom", app | {"roomId": room, "clock": "ROOM_CLOCK_MEDIA"})
    assert created["room"]["roomId"] == room
    order = app | {
        "roomId": room,
        "mode": "RECORD_MODE_SINGLE_AND_MIXED",
        "output": {"singleContainers": ["CONTAINER_WAV"], "segmentDuration": "3600s"},
    }
    started = await curl("RecordingService/StartRecord", order)
    task = app | {"taskId": started["task"]["taskId"]}
    watching = await curl.start(
        "WatchService/WatchEvents",
        app | {"resumeToken": started["resumeToken"], "filter": {"taskIds": [task["taskId"]]}},
    )
    try:
        await publish(curl.target, room)
        running = await curl("RecordingService/DescribeTaskInfo", app | {"roomId": room})
        assert [each["taskId"] for each in running["tasks"]] == [task["taskId"]]
        stopped = await curl("RecordingService/StopRecord", task)
        assert stopped["task"]["stopReason"] == "STOP_REASON_API"
        # The stream ends by itself with the task's last event.
        async with asyncio.timeout(WAIT_SECONDS):
            out, err = await watching.communicate()
        assert watching.returncode == 0, err
    finally:
        if watching.returncode is None:
            watching.kill()
            await watching.wait()
    events = [each["event"] for each in documents(out.decode()) if "event" in each]
    numbers = [int(each["taskSequence"]) for each in events]
    assert numbers == list(range(1, len(numbers) + 1))
    types = [each["type"] for each in events]
    assert types[0] == "EVENT_TYPE_TASK_STARTED"
    assert types[-1] == "EVENT_TYPE_TASK_FILES_COMPLETE"
    assert types.count("EVENT_TYPE_SEGMENT_UPLOADED") == 2
    done = await curl("RecordingService/DescribeRecordInfo", task)
    assert done["task"]["state"] == "TASK_STATE_COMPLETED"
    assert {each["duration"] for each in done["segments"]} == {"1s"}


async def test_it_shows_the_details_of_errors(curl: Curl) -> None:
    error = await curl.error(
        "RecordingService/StartRecord", {"appId": "app", "roomId": "no such room", "mode": 1}
    )
    assert error["code"] == "not_found"
    assert "no such room" in error["message"]
    info = error_details_pb2.ErrorInfo.FromString(detail_of(error, "ErrorInfo"))
    assert (info.domain, info.reason) == ("roomtape", "ROOM_NOT_FOUND")
    assert info.metadata["roomId"] == "no such room"
    assert error_details_pb2.RequestInfo.FromString(detail_of(error, "RequestInfo")).request_id
    error = await curl.error("RecordingService/StartRecord", {"appId": "app", "mode": 1})
    bad = error_details_pb2.BadRequest.FromString(detail_of(error, "BadRequest"))
    assert [each.field for each in bad.field_violations] == ["room_id"]


def detail_of(error: Message, kind: str) -> bytes:
    """A detail as buf prints what its schema does not have: base64 without padding."""
    (value,) = [each["value"] for each in error["details"] if each["type"] == f"google.rpc.{kind}"]
    return base64.b64decode(value + "==")


async def publish(target: str, room_id: str) -> None:
    offer = ingest_pb2.TrackOffer(
        track_id="mic", codec=media_pb2.CODEC_PCM_S16LE, sample_rate_hz=48_000, channels=1
    )
    async with Client(target) as client:
        publisher = client.publisher("app", room_id, "ada", [offer], start_time_ns=1_700_000_000 * 10**9)
        async with publisher:
            await publisher.publish("mic", tone(440, 1).tobytes())


def documents(text: str) -> list[Message]:
    """JSON documents that follow each other."""
    decoder, found, at = json.JSONDecoder(), list[Message](), 0
    while at < len(text):
        document, at = decoder.raw_decode(text, at)
        found.append(document)
        while at < len(text) and text[at].isspace():
            at += 1
    return found
