"""Processes of many watchers, and what a node needs for them."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import psutil
from grpc import aio

from roomtape.v1 import room_pb2, room_pb2_grpc, task_pb2, task_pb2_grpc

__all__ = ["EVENTS_A_ROOM", "MIB", "Crowd", "MemoryWatch", "crowd_of", "make_events"]

MIB = 1024 * 1024
EVENTS_A_ROOM = 7
"""The room opens and closes; its task starts, stops, changes its state twice, and has its files complete."""

_CALLS_AT_ONCE = 64
_CALL_SECONDS = 60.0
_SAMPLE_SECONDS = 0.05


class Crowd:
    """A process of `tests.support.watch_crowd`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def hear(self) -> Mapping[str, int]:
        """Its next line."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, f"watchers ended with {await self._process.wait()}"
        facts: Mapping[str, int] = json.loads(line)
        return facts

    def wake(self) -> None:
        """Those who read nothing read."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"read\n")


@asynccontextmanager
async def crowd_of(
    target: str, app_id: str, watchers: int, *, stalled: int, events: int
) -> AsyncIterator[Crowd]:
    """Opens as many streams at once, in a process of their own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.watch_crowd", target, app_id),
        *(str(number) for number in (watchers, stalled, events)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Crowd(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def make_events(target: str, app_id: str, rooms: int, *, label_characters: int = 0) -> None:
    """Records nobody in as many rooms, each of which makes `EVENTS_A_ROOM`; labels make those of tasks larger."""
    numbers = iter(range(rooms))
    labels = {"text": "x" * label_characters} if label_characters else {}

    async def record(channel: aio.Channel) -> None:
        opened, tasks = room_pb2_grpc.RoomServiceStub(channel), task_pb2_grpc.RecordingServiceStub(channel)
        for number in numbers:
            room_id = f"crowd-{number}"
            create = room_pb2.CreateRoomRequest(app_id=app_id, room_id=room_id)
            await opened.CreateRoom(create, timeout=_CALL_SECONDS)
            start = task_pb2.StartRecordRequest(
                app_id=app_id, room_id=room_id, mode=task_pb2.RECORD_MODE_SINGLE, labels=labels
            )
            started = await tasks.StartRecord(start, timeout=_CALL_SECONDS)
            stop = task_pb2.StopRecordRequest(app_id=app_id, task_id=started.task.task_id)
            await tasks.StopRecord(stop, timeout=_CALL_SECONDS)
            close = room_pb2.CloseRoomRequest(app_id=app_id, room_id=room_id)
            await opened.CloseRoom(close, timeout=_CALL_SECONDS)

    async with aio.insecure_channel(target) as channel:
        await asyncio.gather(*(record(channel) for _ in range(_CALLS_AT_ONCE)))


class MemoryWatch:
    """Looks at a process's resident memory until it is stopped."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._task = asyncio.create_task(self._run())
        self.first_bytes = self.now_bytes()
        self.most_bytes = self.first_bytes

    def now_bytes(self) -> int:
        """At this moment."""
        return int(self._process.memory_info().rss)

    async def stop(self) -> int:
        """How much it grew at most since it was looked at first."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self.most_bytes - self.first_bytes

    async def _run(self) -> None:
        while True:
            self.most_bytes = max(self.most_bytes, self.now_bytes())
            await asyncio.sleep(_SAMPLE_SECONDS)
