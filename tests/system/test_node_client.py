"""The Node program, made from the proto alone, starts, watches and stops a recording on the real server."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from roomtape.client import Client
from roomtape.v1 import room_pb2
from tests.client.media import tone, write
from tests.support.server import ServerProcess, running_server

pytestmark = pytest.mark.system

CLIENT = Path(__file__).parents[2] / "clients" / "node"
START_NS = 1_700_000_000_000_000_000
WAIT_SECONDS = 60


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with running_server(tmp_path / "server") as server:
        yield server


@asynccontextmanager
async def recording(server: ServerProcess, room_id: str, *options: str) -> AsyncIterator["Program"]:
    """Runs the program in a room."""
    node = shutil.which("node")
    assert node is not None, "install Node 18 or newer"
    assert (CLIENT / "node_modules").is_dir(), "`make test-system` installs the program's packages"
    process = await asyncio.create_subprocess_exec(
        node,
        "record.mjs",
        server.target,
        "app",
        room_id,
        *options,
        cwd=CLIENT,
        env={"PATH": os.environ["PATH"]},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Program:
    """The running program: its lines, and its standard input."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> dict[str, Any]:
        """Its next line."""
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT_SECONDS):
            line: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return line

    async def rest(self) -> list[dict[str, Any]]:
        """All lines to its end, which must be a good one."""
        assert self._process.stdout is not None
        async with asyncio.timeout(WAIT_SECONDS):
            text = (await self._process.stdout.read()).decode()
            assert await self._process.wait() == 0, text
        return [json.loads(line) for line in text.splitlines()]

    def tell(self) -> None:
        """Tells it to stop."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"stop\n")


async def test_it_records_until_the_publisher_left(server: ServerProcess, tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.ogg", "libopus", tone(440, 2))
    async with Client(server.target) as client:
        request = room_pb2.CreateRoomRequest(app_id="app", room_id="node", clock=room_pb2.ROOM_CLOCK_MEDIA)
        await client.rooms.CreateRoom(request)
        async with recording(server, "node", "--until-left", "ada") as program:
            started = await program.line()
            await client.publish_file(clip, "app", "node", "ada", realtime=False, start_time_ns=START_NS)
            lines = await program.rest()
    assert started["what"] == "started"
    task = started["task"]
    # A 64-bit number, exact to its last digit.
    assert str(int(task["task_id"])) == task["task_id"]
    assert int(task["task_id"]) > 2**53
    events = [line["event"] for line in lines if line["what"] == "event"]
    of_task = [event for event in events if event["task_id"] == task["task_id"]]
    numbers = [int(event["task_sequence"]) for event in of_task]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert numbers[0] <= int(task["task_sequence"]) + 1
    assert all(isinstance(event["sequence"], str) for event in events)
    assert "EVENT_TYPE_PARTICIPANT_JOINED" in {event["type"] for event in events}
    assert of_task[-1]["type"] == "EVENT_TYPE_TASK_FILES_COMPLETE"
    stopped = next(line for line in lines if line["what"] == "stopped")
    assert stopped["why"] == "left"
    done = lines[-1]
    assert done["what"] == "done"
    assert done["task"]["state"] == "TASK_STATE_COMPLETED"
    assert {(each["kind"], each.get("user_id", "")) for each in done["files"]} == {
        ("RECORDING_KIND_SINGLE", "ada"),
        ("RECORDING_KIND_MIXED", ""),
    }
    for file in done["files"]:
        assert int(file["sample_count"]) == pytest.approx(2 * 48_000, abs=4_000)


async def test_it_stops_when_told_and_says_why_it_can_not_start(server: ServerProcess) -> None:
    async with Client(server.target) as client:
        await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id="app", room_id="quiet"))
        async with recording(server, "quiet") as program:
            await program.line()
            program.tell()
            lines = await program.rest()
    assert [line["what"] for line in lines if line["what"] != "event"] == ["stopped", "done"]
    async with recording(server, "quiet", "--seconds", "0.2") as program:
        assert (await program.line())["what"] == "started"
        assert (await program.rest())[-1]["what"] == "done"
    async with recording(server, "missing") as program:
        error = await program.line()
    assert (error["what"], error["code"]) == ("error", "NOT_FOUND")
    assert error["request_id"]
