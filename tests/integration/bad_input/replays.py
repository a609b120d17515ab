"""Requests with a `request_id`: what they ask for, and what another payload under the same id would be."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from google.protobuf.message import Message

from roomtape.v1 import application_pb2, room_pb2, task_pb2
from tests.integration.bad_input.world import World

__all__ = ["REPLAYS", "USER", "Replay", "assign"]

USER = "guest"


@dataclass(frozen=True, slots=True)
class Replay:
    """`request` is given a room of its own with `USER` in it, which is recorded by a task."""

    request: Callable[[str, str], Message]
    other: Callable[[Message], None]
    """Makes it another request."""
    move_on: Callable[[World, str, str], Awaitable[object]]
    """Changes the state so that the request could not be carried out any more."""


async def _nothing(_world: World, _room_id: str, _task_id: str) -> None:
    return


async def _close(world: World, room_id: str, _task_id: str) -> None:
    await world.client.rooms.CloseRoom(room_pb2.CloseRoomRequest(app_id="app", room_id=room_id))


async def _reopen(world: World, room_id: str, task_id: str) -> None:
    await _close(world, room_id, task_id)
    clock = room_pb2.ROOM_CLOCK_ARRIVAL
    await world.client.rooms.CreateRoom(
        room_pb2.CreateRoomRequest(app_id="app", room_id=room_id, clock=clock)
    )


async def _rename(world: World, room_id: str, _task_id: str) -> None:
    application = application_pb2.Application(app_id=room_id, display_name="third")
    await world.client.applications.UpdateApplication(
        application_pb2.UpdateApplicationRequest(application=application)
    )


def assign(request: Message, path: str, value: object) -> None:
    """Sets the field at a dotted path."""
    *holders, name = path.split(".")
    target: object = request
    for holder in holders:
        target = getattr(target, holder)
    setattr(target, name, value)


def _set(path: str, value: object) -> Callable[[Message], None]:
    return lambda request: assign(request, path, value)


def _application(room_id: str) -> application_pb2.Application:
    return application_pb2.Application(app_id=room_id, display_name="second")


REPLAYS: Mapping[str, Replay] = {
    "ApplicationService.CreateApplication": Replay(
        lambda room_id, _: application_pb2.CreateApplicationRequest(
            application=application_pb2.Application(app_id=f"{room_id}-new")
        ),
        _set("application.display_name", "other"),
        _nothing,
    ),
    "ApplicationService.UpdateApplication": Replay(
        lambda room_id, _: application_pb2.UpdateApplicationRequest(application=_application(room_id)),
        _set("application.display_name", "other"),
        _rename,
    ),
    "RoomService.CreateRoom": Replay(
        lambda room_id, _: room_pb2.CreateRoomRequest(
            app_id="app", room_id=room_id, clock=room_pb2.ROOM_CLOCK_MEDIA
        ),
        _set("room_id", "another"),
        _reopen,
    ),
    "RoomService.CloseRoom": Replay(
        lambda room_id, _: room_pb2.CloseRoomRequest(app_id="app", room_id=room_id),
        _set("room_id", "another"),
        _nothing,
    ),
    "RoomService.SetTrackMuted": Replay(
        lambda room_id, _: room_pb2.SetTrackMutedRequest(
            app_id="app", room_id=room_id, user_id=USER, muted=True
        ),
        _set("muted", False),
        _close,
    ),
    "RoomService.RemoveParticipant": Replay(
        lambda room_id, _: room_pb2.RemoveParticipantRequest(app_id="app", room_id=room_id, user_id=USER),
        _set("user_id", "another"),
        _close,
    ),
    "RecordingService.StartRecord": Replay(
        lambda room_id, _: task_pb2.StartRecordRequest(
            app_id="app", room_id=f"{room_id}-free", mode=task_pb2.RECORD_MODE_SINGLE
        ),
        _set("mode", task_pb2.RECORD_MODE_MIXED),
        _close,
    ),
    "RecordingService.StopRecord": Replay(
        lambda _, task_id: task_pb2.StopRecordRequest(app_id="app", task_id=task_id),
        _set("task_id", "1"),
        _close,
    ),
    "RecordingService.ModifyRecordInfo": Replay(
        lambda _, task_id: task_pb2.ModifyRecordInfoRequest(
            app_id="app", task_id=task_id, mode=task_pb2.RECORD_MODE_SINGLE_AND_MIXED
        ),
        _set("mode", task_pb2.RECORD_MODE_MIXED),
        _close,
    ),
}
