"""RecordingService.StartRecord: requests that are refused."""

from collections.abc import Sequence

from google.protobuf import duration_pb2

from roomtape.v1 import media_pb2, task_pb2
from tests.integration.bad_input.cases import case
from tests.integration.bad_input.world import World

__all__ = ["ALLOW", "BLOCK", "START_CASES", "subscription", "users"]

ALLOW, BLOCK = "subscription.audio.allow_user_ids", "subscription.audio.block_user_ids"

_START = "RecordingService.StartRecord"
_SINGLE = task_pb2.RECORD_MODE_SINGLE
_UNKNOWN = 99


def subscription(allow: Sequence[str], block: Sequence[str]) -> task_pb2.Subscription:
    """With both lists, as they are."""
    audio = task_pb2.UserFilter(allow_user_ids=allow, block_user_ids=block)
    return task_pb2.Subscription(audio=audio)


def users(count: int) -> list[str]:
    """So many different users."""
    return [f"user-{number}" for number in range(count)]


def _start(
    *,
    app_id: str = "app",
    room_id: str = "empty",
    mode: int = _SINGLE,
    allow: Sequence[str] = (),
    block: Sequence[str] = (),
    single: Sequence[int] = (),
    mixed: Sequence[int] = (),
    seconds: float | None = None,
    bitrate: int = 0,
    client_task_id: str = "",
    labels: dict[str, str] | None = None,
    request_id: str = "",
) -> task_pb2.StartRecordRequest:
    request = task_pb2.StartRecordRequest(
        app_id=app_id,
        room_id=room_id,
        mode=task_pb2.RecordMode.ValueType(mode),
        subscription=subscription(allow, block),
        client_task_id=client_task_id,
        labels=labels or {},
        request_id=request_id,
    )
    output = request.output
    output.single_containers.extend(media_pb2.Container.ValueType(each) for each in single)
    output.mixed_containers.extend(media_pb2.Container.ValueType(each) for each in mixed)
    output.audio_bitrate_bps = bitrate
    if seconds is not None:
        output.segment_duration.FromNanoseconds(round(seconds * 1e9))
    return request


def _with_duration(
    request: task_pb2.StartRecordRequest, duration: duration_pb2.Duration
) -> task_pb2.StartRecordRequest:
    request.output.segment_duration.CopyFrom(duration)
    return request


def _with_profile(
    request: task_pb2.StartRecordRequest, rate_hz: int, channels: int
) -> task_pb2.StartRecordRequest:
    request.output.audio_sample_rate_hz, request.output.audio_channels = rate_hz, channels
    return request


def _with_retention(
    request: task_pb2.StartRecordRequest, retention: duration_pb2.Duration
) -> task_pb2.StartRecordRequest:
    request.output.retention.CopyFrom(retention)
    return request


def _in_use(world: World) -> dict[str, str]:
    return {"roomId": world.room_id, "taskId": world.witness.task_id}


START_CASES = (
    case(_START, "no application", lambda _: _start(app_id=""), "FIELD_REQUIRED", "app_id"),
    case(_START, "application with slash", lambda _: _start(app_id="a/b"), "INVALID_ID", "app_id"),
    case(
        _START, "application of dots and slashes", lambda _: _start(app_id="../app"), "INVALID_ID", "app_id"
    ),
    case(_START, "over-long application", lambda _: _start(app_id="a" * 65), "INVALID_ID", "app_id"),
    case(_START, "application with underscore", lambda _: _start(app_id="a_b"), "INVALID_ID", "app_id"),
    case(_START, "emoji application", lambda _: _start(app_id="😀"), "INVALID_ID", "app_id"),
    case(
        _START,
        "unknown application",
        lambda _: _start(app_id="nobody"),
        "APPLICATION_NOT_FOUND",
        metadata=lambda _: {"appId": "nobody"},
    ),
    case(
        _START,
        "unknown application and a request id",
        lambda _: _start(app_id="nobody", request_id="r"),
        "APPLICATION_NOT_FOUND",
    ),
    case(_START, "switched off", lambda _: _start(app_id="off"), "SERVICE_DISABLED"),
    case(_START, "no room", lambda _: _start(room_id=""), "FIELD_REQUIRED", "room_id"),
    case(
        _START,
        "over-long room",
        lambda _: _start(room_id="r" * 129),
        "INVALID_ID",
        "room_id",
        metadata=lambda _: {"sizeBytes": "129"},
    ),
    case(_START, "over-long room of emoji", lambda _: _start(room_id="😀" * 33), "INVALID_ID", "room_id"),
    case(_START, "room with a control", lambda _: _start(room_id="a\nb"), "INVALID_ID", "room_id"),
    case(_START, "room with a C1 control", lambda _: _start(room_id="a\x85b"), "INVALID_ID", "room_id"),
    case(_START, "room with NUL", lambda _: _start(room_id="\0"), "INVALID_ID", "room_id"),
    case(
        _START,
        "missing room",
        lambda _: _start(room_id="nowhere"),
        "ROOM_NOT_FOUND",
        metadata=lambda _: {"appId": "app", "roomId": "nowhere"},
    ),
    case(_START, "missing room of dots", lambda _: _start(room_id=".."), "ROOM_NOT_FOUND"),
    case(
        _START,
        "room of another application",
        lambda world: _start(app_id="gme", room_id=world.witness.live_room_id),
        "ROOM_NOT_FOUND",
    ),
    case(
        _START,
        "room in use",
        lambda world: _start(room_id=world.room_id),
        "TASK_IN_USE",
        metadata=_in_use,
    ),
    case(_START, "no mode", lambda _: _start(mode=0), "INVALID_RECORD_MODE", "mode"),
    case(
        _START,
        "unknown mode",
        lambda _: _start(mode=_UNKNOWN),
        "INVALID_RECORD_MODE",
        "mode",
        metadata=lambda _: {"value": "99"},
    ),
    case(_START, "negative mode", lambda _: _start(mode=-1), "INVALID_RECORD_MODE", "mode"),
    case(
        _START,
        "both lists",
        lambda _: _start(allow=["a"], block=["b"]),
        "SUBSCRIPTION_CONFLICT",
        "subscription.audio",
    ),
    case(
        _START,
        "1,001 allowed",
        lambda _: _start(allow=users(1001)),
        "TOO_MANY_ALLOWED_USERS",
        ALLOW,
        metadata=lambda _: {"count": "1001", "limit": "1000"},
    ),
    case(_START, "1,001 blocked", lambda _: _start(block=users(1001)), "TOO_MANY_BLOCKED_USERS", BLOCK),
    case(
        _START,
        "21 allowed by gme",
        lambda world: _start(app_id="gme", room_id=world.room_id, allow=users(21)),
        "TOO_MANY_ALLOWED_USERS",
        ALLOW,
        metadata=lambda _: {"count": "21", "limit": "20"},
    ),
    case(
        _START,
        "21 blocked by gme",
        lambda world: _start(app_id="gme", room_id=world.room_id, block=users(21)),
        "TOO_MANY_BLOCKED_USERS",
        BLOCK,
        metadata=lambda _: {"count": "21", "limit": "20"},
    ),
    case(_START, "empty user", lambda _: _start(allow=["a", ""]), "FIELD_REQUIRED", f"{ALLOW}[1]"),
    case(_START, "user with a control", lambda _: _start(block=["\x1b[2J"]), "INVALID_ID", f"{BLOCK}[0]"),
    case(
        _START,
        "all users over-long",
        lambda _: _start(allow=["u" * 200] * 3),
        "INVALID_ID",
        *(f"{ALLOW}[{index}]" for index in range(3)),
    ),
    case(
        _START,
        "unknown container",
        lambda _: _start(single=[_UNKNOWN]),
        "INVALID_CONTAINER",
        "output.single_containers[0]",
        metadata=lambda _: {"value": "99"},
    ),
    case(
        _START,
        "unspecified container",
        lambda _: _start(mixed=[1, 0]),
        "INVALID_CONTAINER",
        "output.mixed_containers[1]",
    ),
    case(
        _START,
        "container twice",
        lambda _: _start(single=[3, 1, 3]),
        "INVALID_CONTAINER",
        "output.single_containers[2]",
    ),
    case(
        _START,
        "a mix in OGG",
        lambda _: _start(mode=2, mixed=[media_pb2.CONTAINER_OGG]),
        "CODEC_NOT_IN_CONTAINER",
        "output.mixed_containers",
        metadata=lambda _: {"container": "OGG", "codec": "PCM_S16LE"},
    ),
    case(
        _START,
        "segments of half a second",
        lambda _: _start(seconds=0.5),
        "INVALID_VALUE",
        "output.segment_duration",
    ),
    case(
        _START,
        "segments over a day",
        lambda _: _start(seconds=86_401),
        "INVALID_VALUE",
        "output.segment_duration",
    ),
    case(
        _START, "negative segments", lambda _: _start(seconds=-3), "INVALID_VALUE", "output.segment_duration"
    ),
    case(
        _START,
        "a duration that is none",
        lambda _: _with_duration(_start(), duration_pb2.Duration(seconds=2**62, nanos=-5)),
        "INVALID_VALUE",
        "output.segment_duration",
    ),
    case(
        _START,
        "no MP3 bit rate",
        lambda _: _start(bitrate=65_000),
        "INVALID_VALUE",
        "output.audio_bitrate_bps",
    ),
    case(
        _START,
        "a rate that no encoder has",
        lambda _: _with_profile(_start(), 47_999, 1),
        "INVALID_VALUE",
        "output.audio_sample_rate_hz",
        metadata=lambda _: {"value": "47999"},
    ),
    case(
        _START,
        "three channels",
        lambda _: _with_profile(_start(), 48_000, 3),
        "INVALID_VALUE",
        "output.audio_channels",
        metadata=lambda _: {"value": "3"},
    ),
    case(
        _START,
        "a retention of half a day",
        lambda _: _with_retention(_start(), duration_pb2.Duration(seconds=43_200)),
        "INVALID_VALUE",
        "output.retention",
        metadata=lambda _: {"value": "43200s"},
    ),
    case(
        _START,
        "a retention of 1,501 days",
        lambda _: _with_retention(_start(), duration_pb2.Duration(seconds=1501 * 86_400)),
        "INVALID_VALUE",
        "output.retention",
    ),
    case(_START, "own id with slash", lambda _: _start(client_task_id="a/b"), "INVALID_ID", "client_task_id"),
    case(_START, "label without key", lambda _: _start(labels={"": "x"}), "INVALID_VALUE", "labels"),
    case(
        _START,
        "33 labels",
        lambda _: _start(labels={f"k{number}": "" for number in range(33)}),
        "INVALID_VALUE",
        "labels",
        metadata=lambda _: {"count": "33", "limit": "32"},
    ),
    case(_START, "over-long label", lambda _: _start(labels={"k": "v" * 257}), "INVALID_VALUE", "labels.k"),
    case(_START, "request id with a space", lambda _: _start(request_id="a b"), "INVALID_ID", "request_id"),
    case(_START, "over-long request id", lambda _: _start(request_id="r" * 37), "INVALID_ID", "request_id"),
    case(
        _START,
        "everything at once",
        lambda _: _start(app_id="😀", room_id="\0", request_id="ü"),
        "INVALID_ID",
        "app_id",
        "room_id",
        "request_id",
    ),
)
