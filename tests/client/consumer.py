"""A program as users of the client write it: `python consumer.py HOST:PORT APP` records a room, both ways.

It needs the dist `roomtape` alone, is strictly typed, and runs on the oldest and the newest runtime.
"""

import asyncio
import json
import sys
from typing import assert_type

from roomtape.client import (
    AlreadyExists,
    Client,
    HistoryGone,
    NotFound,
    PublisherStatistics,
    RoomtapeError,
    SyncClient,
)
from roomtape.v1 import error_pb2, event_pb2, file_pb2, ingest_pb2, media_pb2, room_pb2, task_pb2

FRAME_SAMPLES = 960


def start_request(app_id: str, room_id: str) -> task_pb2.StartRecordRequest:
    return task_pb2.StartRecordRequest(
        app_id=app_id,
        room_id=room_id,
        mode=task_pb2.RECORD_MODE_SINGLE,
        output=task_pb2.OutputSettings(single_containers=[media_pb2.CONTAINER_WAV]),
    )


async def with_asyncio(target: str, app_id: str) -> dict[str, object]:
    room_id = "consumer-asyncio"
    async with Client(target, timeout_seconds=20) as client:
        opened = await client.rooms.CreateRoom(
            room_pb2.CreateRoomRequest(app_id=app_id, room_id=room_id, clock=room_pb2.ROOM_CLOCK_MEDIA)
        )
        assert_type(opened, room_pb2.CreateRoomResponse)
        started = await client.recording.StartRecord(start_request(app_id, room_id))
        task_id = assert_type(started.task.task_id, str)
        reason: error_pb2.ErrorReason.ValueType | None = None
        try:
            await client.recording.StartRecord(start_request(app_id, room_id))
        except AlreadyExists as error:
            reason = error.reason
        statistics = await publish(client, app_id, room_id)
        await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id=app_id, task_id=task_id))
        seen: list[str] = []
        last_task_event = event_pb2.EventFilter(task_ids=[task_id])
        try:
            async for event in client.watch_events(
                app_id, after=started.resume_token, filter=last_task_event
            ):
                assert_type(event, event_pb2.Event)
                seen.append(event_pb2.EventType.Name(event.type))
        except HistoryGone as error:
            print(f"go on from {error.oldest_resume_token}", file=sys.stderr)
        done = await client.wait_until_complete(app_id, task_id)
        names = [segment.object_key async for segment in client.list_files(files_of(app_id, task_id))]
    return {
        "refused": error_pb2.ErrorReason.Name(reason) if reason is not None else None,
        "published": statistics.published_frames,
        "samples": sum(segment.sample_count for segment in done.segments),
        "files": len(names),
        "events": seen,
    }


async def publish(client: Client, app_id: str, room_id: str) -> PublisherStatistics:
    offer = ingest_pb2.TrackOffer(
        track_id="voice", codec=media_pb2.CODEC_PCM_S16LE, sample_rate_hz=48_000, channels=1
    )
    async with client.publisher(app_id, room_id, "user", [offer]) as publisher:
        for _ in range(50):
            assert_type(await publisher.publish("voice", bytes(FRAME_SAMPLES * 2)), int)
    return publisher.statistics()


def files_of(app_id: str, task_id: str) -> file_pb2.ListFilesRequest:
    return file_pb2.ListFilesRequest(app_id=app_id, task_id=task_id)


def with_threads(target: str, app_id: str) -> dict[str, object]:
    room_id = "consumer-threads"
    with SyncClient(target) as client:
        try:
            client.recording.StartRecord(start_request(app_id, room_id))
        except NotFound as error:
            missing = error_pb2.ErrorReason.Name(error.reason)
        else:
            missing = ""
        room = client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id=app_id, room_id=room_id)).room
        assert_type(room, room_pb2.Room)
        started = client.recording.StartRecord(start_request(app_id, room_id))
        client.recording.StopRecord(task_pb2.StopRecordRequest(app_id=app_id, task_id=started.task.task_id))
        filter = event_pb2.EventFilter(task_ids=[started.task.task_id])
        with client.watch_events(app_id, after=started.resume_token, filter=filter) as events:
            seen = [event_pb2.EventType.Name(event.type) for event in events]
    return {"missing": missing, "events": seen}


def main(target: str, app_id: str) -> int:
    try:
        report = {
            "asyncio": asyncio.run(with_asyncio(target, app_id)),
            "threads": with_threads(target, app_id),
        }
    except RoomtapeError as error:
        print(f"{error} {dict(error.metadata)}", file=sys.stderr)
        return 1
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
