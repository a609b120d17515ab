"""RoomService: requests that are refused."""

from collections.abc import Sequence

from roomtape.v1 import room_pb2
from tests.integration.bad_input.cases import Case, case

__all__ = ["CASES"]

_CREATE = "RoomService.CreateRoom"
_LIST = "RoomService.ListRooms"
_MUTE = "RoomService.SetTrackMuted"
_REMOVE = "RoomService.RemoveParticipant"


def _of_room(
    rpc: str, request: type[room_pb2.CloseRoomRequest] | type[room_pb2.DescribeRoomRequest]
) -> Sequence[Case]:
    return (
        case(rpc, "no application", lambda _: request(room_id="empty"), "FIELD_REQUIRED", "app_id"),
        case(rpc, "no room", lambda _: request(app_id="app"), "FIELD_REQUIRED", "room_id"),
        case(
            rpc, "room with a control", lambda _: request(app_id="app", room_id="\r"), "INVALID_ID", "room_id"
        ),
        case(
            rpc,
            "missing room",
            lambda _: request(app_id="app", room_id="😀"),
            "ROOM_NOT_FOUND",
            metadata=lambda _: {"appId": "app", "roomId": "😀"},
        ),
        case(
            rpc,
            "room of another application",
            lambda world: request(app_id="gme", room_id=world.witness.live_room_id),
            "ROOM_NOT_FOUND",
        ),
        case(
            rpc,
            "unknown application",
            lambda world: request(app_id="nobody", room_id=world.room_id),
            "ROOM_NOT_FOUND",
        ),
    )


def _of_user(
    rpc: str, request: type[room_pb2.SetTrackMutedRequest] | type[room_pb2.RemoveParticipantRequest]
) -> Sequence[Case]:
    return (
        case(
            rpc,
            "no user",
            lambda world: request(app_id="app", room_id=world.room_id),
            "FIELD_REQUIRED",
            "user_id",
        ),
        case(
            rpc,
            "over-long user",
            lambda world: request(app_id="app", room_id=world.room_id, user_id="é" * 65),
            "INVALID_ID",
            "user_id",
            metadata=lambda _: {"sizeBytes": "130"},
        ),
        case(
            rpc,
            "missing room",
            lambda _: request(app_id="app", room_id="nowhere", user_id="pcm"),
            "ROOM_NOT_FOUND",
        ),
        case(
            rpc,
            "user who is not there",
            lambda world: request(app_id="app", room_id=world.room_id, user_id="PCM"),
            "PARTICIPANT_NOT_FOUND",
            metadata=lambda world: {"roomId": world.room_id, "userId": "PCM"},
        ),
        case(
            rpc,
            "user of another room",
            lambda world: request(app_id="app", room_id=world.room_id, user_id="live"),
            "PARTICIPANT_NOT_FOUND",
        ),
        case(
            rpc,
            "user of another application",
            lambda world: request(app_id="gme", room_id=world.room_id, user_id="pcm"),
            "PARTICIPANT_NOT_FOUND",
        ),
    )


CASES = (
    *_of_room("RoomService.CloseRoom", room_pb2.CloseRoomRequest),
    *_of_room("RoomService.DescribeRoom", room_pb2.DescribeRoomRequest),
    *_of_user(_MUTE, room_pb2.SetTrackMutedRequest),
    *_of_user(_REMOVE, room_pb2.RemoveParticipantRequest),
    case(
        _CREATE,
        "unknown application",
        lambda _: room_pb2.CreateRoomRequest(app_id="nobody", room_id="r"),
        "APPLICATION_NOT_FOUND",
        metadata=lambda _: {"appId": "nobody"},
    ),
    case(
        _CREATE,
        "over-long application",
        lambda _: room_pb2.CreateRoomRequest(app_id="a" * 65, room_id="r"),
        "INVALID_ID",
        "app_id",
    ),
    case(_CREATE, "no room", lambda _: room_pb2.CreateRoomRequest(app_id="app"), "FIELD_REQUIRED", "room_id"),
    case(
        _CREATE,
        "room with a control",
        lambda _: room_pb2.CreateRoomRequest(app_id="app", room_id="a\x7fb"),
        "INVALID_ID",
        "room_id",
    ),
    case(
        _CREATE,
        "over-long room",
        lambda _: room_pb2.CreateRoomRequest(app_id="app", room_id="r" * 129),
        "INVALID_ID",
        "room_id",
    ),
    case(
        _CREATE,
        "unknown clock",
        lambda _: room_pb2.CreateRoomRequest(
            app_id="app", room_id="r", clock=room_pb2.RoomClock.ValueType(99)
        ),
        "INVALID_VALUE",
        "clock",
        metadata=lambda _: {"value": "99"},
    ),
    case(
        _CREATE,
        "open with another clock",
        lambda world: room_pb2.CreateRoomRequest(
            app_id="app", room_id=world.room_id, clock=room_pb2.ROOM_CLOCK_ARRIVAL
        ),
        "ROOM_EXISTS",
        metadata=lambda world: {"roomId": world.room_id, "clock": "ROOM_CLOCK_MEDIA"},
    ),
    case(
        _CREATE,
        "request id of emoji",
        lambda _: room_pb2.CreateRoomRequest(app_id="app", room_id="r", request_id="😀"),
        "INVALID_ID",
        "request_id",
    ),
    case(
        _LIST,
        "unknown application",
        lambda _: room_pb2.ListRoomsRequest(app_id="nobody"),
        "APPLICATION_NOT_FOUND",
    ),
    case(
        _LIST,
        "negative page",
        lambda _: room_pb2.ListRoomsRequest(app_id="app", page_size=-5),
        "INVALID_VALUE",
        "page_size",
    ),
    case(
        _LIST,
        "a token that is none",
        lambda _: room_pb2.ListRoomsRequest(app_id="app", page_token="AAAA"),
        "INVALID_PAGE_TOKEN",
        "page_token",
    ),
    case(
        _MUTE,
        "track with slash",
        lambda world: room_pb2.SetTrackMutedRequest(
            app_id="app", room_id=world.room_id, user_id="pcm", track_id="../mic"
        ),
        "INVALID_ID",
        "track_id",
    ),
    case(
        _MUTE,
        "track that is not there",
        lambda world: room_pb2.SetTrackMutedRequest(
            app_id="app", room_id=world.room_id, user_id="pcm", track_id="camera", muted=True
        ),
        "TRACK_NOT_FOUND",
        metadata=lambda _: {"userId": "pcm", "trackId": "camera"},
    ),
)
