"""Plays the script into a room that is being recorded, and keeps what there is to judge afterwards."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from roomtape.client import Client, Watch
from roomtape.v1 import application_pb2, event_pb2, file_pb2, room_pb2, task_pb2
from roomtape_service.cli.publishing import FilePublication
from roomtape_service.demo.clips import Clip
from roomtape_service.demo.failure import DemoError
from roomtape_service.demo.script import APP_ID, MIXED_CONTAINERS, ROOM_ID, SINGLE_CONTAINERS, Part

__all__ = ["Performance", "Spoken", "perform"]

T = TypeVar("T")

# The script takes 20 s, and files of seconds are stored at once; all together stays under a minute.
_PLAYED_SECONDS = 35.0
_STORED_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a speaker really published; times are UTC of this machine."""

    clip: Clip
    start_ns: int
    end_ns: int
    frames: int


@dataclass(frozen=True, slots=True)
class Performance:
    """What happened, as publishers, watcher and caller know it."""

    spoken: Sequence[Spoken]
    events: Sequence[event_pb2.Event]
    record: task_pb2.DescribeRecordInfoResponse
    manifest: file_pb2.Manifest = field(default_factory=file_pb2.Manifest)


async def perform(
    target: str, script: Sequence[Part], on_event: Callable[[event_pb2.Event], None]
) -> Performance:
    """Records the script in real time; returns when every file is in the store.

    Raises DemoError when that does not come to be, and RoomtapeError for refused calls.
    """
    async with Client(target) as client:
        application = application_pb2.Application(app_id=APP_ID, display_name="The demo")
        await client.applications.CreateApplication(
            application_pb2.CreateApplicationRequest(application=application)
        )
        events: list[event_pb2.Event] = []
        async with client.watch_events(APP_ID, origin=event_pb2.WATCH_ORIGIN_OLDEST) as watch:
            watching = asyncio.create_task(_keep_until_complete(watch, events, on_event))
            try:
                task_id = await _start(client)
                spoken = await _in_time(_play(client, script), _PLAYED_SECONDS, "what was spoken is not safe")
                stop = task_pb2.StopRecordRequest(app_id=APP_ID, task_id=task_id)
                await client.recording.StopRecord(stop)
                async with asyncio.timeout(_STORED_SECONDS):
                    await watching
            except TimeoutError:
                raise DemoError(
                    f"{_STORED_SECONDS:g} s after the stop not all files are in the store"
                ) from None
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        described = task_pb2.DescribeRecordInfoRequest(app_id=APP_ID, task_id=task_id)
        record = await client.recording.DescribeRecordInfo(described)
        wanted = file_pb2.GetManifestRequest(app_id=APP_ID, task_id=task_id)
        manifest = (await client.files.GetManifest(wanted)).manifest
        return Performance(spoken, events, record, manifest)


async def _start(client: Client) -> str:
    await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id=APP_ID, room_id=ROOM_ID))
    reply = await client.recording.StartRecord(
        task_pb2.StartRecordRequest(
            app_id=APP_ID,
            room_id=ROOM_ID,
            mode=task_pb2.RECORD_MODE_SINGLE_AND_MIXED,
            output=task_pb2.OutputSettings(
                single_containers=SINGLE_CONTAINERS, mixed_containers=MIXED_CONTAINERS
            ),
        )
    )
    return reply.task.task_id


async def _in_time(work: Awaitable[T], seconds: float, trouble: str) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise DemoError(f"after {seconds:g} s {trouble}; the server's log may say why") from None


async def _play(client: Client, script: Sequence[Part]) -> list[Spoken]:
    try:
        async with asyncio.TaskGroup() as group:
            playing = [group.create_task(_speak(client, part)) for part in script]
    except ExceptionGroup as failures:
        # Whose part failed first is what there is to tell; the others were cancelled for it.
        raise failures.exceptions[0] from None
    return [each.result() for each in playing]


async def _speak(client: Client, part: Part) -> Spoken:
    await asyncio.sleep(part.join_seconds)
    publication = FilePublication(client, part.clip.path, APP_ID, ROOM_ID, part.user_id, realtime=True)
    try:
        await publication.load()
        await publication.join()
        await publication.run()
        statistics = publication.statistics()
    finally:
        await publication.aclose()
    frames = statistics.published_frames if statistics else 0
    return Spoken(part.clip, publication.start_ns, publication.start_ns + publication.published_ns, frames)


async def _keep_until_complete(
    watch: Watch, events: list[event_pb2.Event], on_event: Callable[[event_pb2.Event], None]
) -> None:
    async for event in watch:
        events.append(event)
        on_event(event)
        if event.type == event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE:
            return
