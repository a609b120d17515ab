"""A database whose disk is full: calls that change something say so, change nothing, and work when there is room."""

from pathlib import Path

import pytest

from roomtape.client import Client, ResourceExhausted, RetrySettings
from roomtape.v1 import room_pb2
from tests.integration.bad_input.cases import covers
from tests.support.server import running_server
from tests.support.small_disk import MIB, can_mount, small_disk

DISK_BYTES = 48 * MIB


@covers("RoomService.CreateRoom", "DATABASE_FULL")
@pytest.mark.skipif(not can_mount(), reason="only root can mount")
async def test_a_database_without_room_changes_nothing_and_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", DISK_BYTES) as disk:
        async with (
            running_server(disk.folder, spool_reserve_bytes=MIB) as server,
            Client(server.target, retry=RetrySettings(attempts=1)) as client,
        ):
            disk.fill()
            made = 0
            refused: ResourceExhausted | None = None
            # What was written before can be written over.
            while refused is None:
                try:
                    await client.rooms.CreateRoom(_room(made))
                except ResourceExhausted as error:
                    refused = error
                else:
                    made += 1
            assert (refused.reason_name, refused.retry_after) == ("DATABASE_FULL", 30)
            found = [
                room.room_id async for room in client.list_rooms(room_pb2.ListRoomsRequest(app_id="app"))
            ]
            assert sorted(found) == sorted(_room(number).room_id for number in range(made))
            disk.empty()
            reply = await client.rooms.CreateRoom(_room(made))
            assert reply.room.room_id == _room(made).room_id


def _room(number: int) -> room_pb2.CreateRoomRequest:
    return room_pb2.CreateRoomRequest(
        app_id="app", room_id=f"room-{number:05d}", request_id=f"make-{number:05d}"
    )
