"""Callers who start, change and end things all the time, and never give up on an order: so every commit has its use.

Each errand is a room of its own with a user who joins, is muted and goes. Orders carry a `request_id`, and are given
again when their answer did not come; so everything happens once.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from google.protobuf import field_mask_pb2, timestamp_pb2

from roomtape.client import Client, InvalidArgument, NotFound, PublisherSettings, RoomtapeError
from roomtape.v1 import application_pb2, ingest_pb2, media_pb2, room_pb2, storage_pb2, task_pb2
from tests.faults.cast import APP, TRACK

__all__ = ["Errands"]

Request = TypeVar("Request")
Answer = TypeVar("Answer")

_FRAMES = 20
_EXPIRING_SECONDS = 300
_OFFER = ingest_pb2.TrackOffer(
    track_id=TRACK, codec=media_pb2.CODEC_PCM_S16LE, sample_rate_hz=8000, channels=1
)
_FRAME = bytes(320)
_SETTINGS = PublisherSettings(outage_seconds=None, open_seconds=120.0)


class Errands:
    """Runs until `finish`, which returns the tasks that were started, by their rooms."""

    def __init__(self, client: Client, seed: int) -> None:
        self._client = client
        self._seed = seed
        self._tasks: dict[str, str] = {}
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins."""
        self._running = asyncio.create_task(self._run())

    async def finish(self) -> dict[str, str]:
        """Returns after the last errand, and raises what one of them failed with."""
        self._stop.set()
        assert self._running is not None
        await self._running
        return self._tasks

    async def aclose(self) -> None:
        """Stops at once. Idempotent."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        for number in itertools.count():
            if self._stop.is_set():
                return
            await self._errand(f"errand-{number}", is_removed=number % 2 == 0)

    async def _errand(self, room_id: str, *, is_removed: bool) -> None:
        client = self._client
        await _twice(
            client.applications.CreateApplication,
            application_pb2.CreateApplicationRequest(
                application=application_pb2.Application(app_id=room_id), request_id=f"{room_id}-a"
            ),
        )
        changed = application_pb2.Application(app_id=room_id, display_name="changed", storage=_expiring())
        # By the server's clock, which may be ahead, they may have expired.
        with suppress(InvalidArgument):
            await client.applications.UpdateApplication(
                application_pb2.UpdateApplicationRequest(
                    application=changed,
                    update_mask=field_mask_pb2.FieldMask(paths=["display_name", "storage"]),
                )
            )
        await _twice(
            client.rooms.CreateRoom,
            room_pb2.CreateRoomRequest(app_id=APP, room_id=room_id, request_id=f"{room_id}-c"),
        )
        start = task_pb2.StartRecordRequest(
            app_id=APP,
            room_id=room_id,
            mode=task_pb2.RECORD_MODE_SINGLE,
            output=task_pb2.OutputSettings(single_containers=[media_pb2.CONTAINER_WAV]),
            request_id=f"{room_id}-s",
        )
        task_id = (await _twice(client.recording.StartRecord, start)).task.task_id
        self._tasks[room_id] = task_id
        await self._publish(room_id, task_id, is_removed=is_removed)
        stop = task_pb2.StopRecordRequest(app_id=APP, task_id=task_id, request_id=f"stop-{task_id}")
        await _twice(client.recording.StopRecord, stop)
        close = room_pb2.CloseRoomRequest(app_id=APP, room_id=room_id, request_id=f"{room_id}-x")
        await _twice(client.rooms.CloseRoom, close)

    async def _publish(self, room_id: str, task_id: str, *, is_removed: bool) -> None:
        publisher = self._client.publisher(APP, room_id, "user", [_OFFER], settings=_SETTINGS)
        try:
            await publisher.open()
            for _ in range(_FRAMES):
                await publisher.publish(TRACK, _FRAME)
                await asyncio.sleep(0.02)
            publisher.mute(TRACK, True)
            await publisher.flush()
            modify = task_pb2.ModifyRecordInfoRequest(
                app_id=APP,
                task_id=task_id,
                mode=task_pb2.RECORD_MODE_SINGLE_AND_MIXED,
                update_mask=field_mask_pb2.FieldMask(paths=["mode"]),
                request_id=f"{room_id}-m",
            )
            await _twice(self._client.recording.ModifyRecordInfo, modify)
            if not is_removed:
                await publisher.close()
                return
            remove = room_pb2.RemoveParticipantRequest(
                app_id=APP, room_id=room_id, user_id="user", request_id=f"{room_id}-r"
            )
            # The publisher's session may have ended with a node, without being resumed before.
            with suppress(NotFound):
                await _twice(self._client.rooms.RemoveParticipant, remove)
        except RoomtapeError as error:
            if not is_removed or error.reason_name != "PARTICIPANT_REMOVED":
                raise
        finally:
            await publisher.aclose()


def _expiring() -> storage_pb2.StorageSettings:
    """A bucket that nothing goes to, with credentials that are about to expire."""
    store = storage_pb2.ObjectStore(
        vendor=storage_pb2.STORAGE_VENDOR_S3,
        bucket="errands",
        region="us-east-1",
        endpoint="http://127.0.0.1:9",
        path_style=True,
        credentials=storage_pb2.StorageCredentials(
            access_key_id="AKERRANDS",
            secret_access_key=storage_pb2.Secret(value="errands"),
            session_token=storage_pb2.Secret(value="errands"),
            expire_time=timestamp_pb2.Timestamp(seconds=int(time.time()) + _EXPIRING_SECONDS),
        ),
    )
    return storage_pb2.StorageSettings(object_store=store)


async def _twice(call: Callable[[Request], Awaitable[Answer]], request: Request) -> Answer:
    """An order that is given again gets the same answer."""
    first = await call(request)
    again = await call(request)
    assert first == again, (request, first, again)
    return first
