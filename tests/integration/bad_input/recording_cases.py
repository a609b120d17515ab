"""RecordingService: requests that are refused."""

from collections.abc import Sequence

from google.protobuf import duration_pb2, field_mask_pb2

from roomtape.v1 import media_pb2, task_pb2
from tests.integration.bad_input.cases import Case, case
from tests.integration.bad_input.world import World

__all__ = ["CASES"]

_SINGLE = task_pb2.RECORD_MODE_SINGLE
_NO_TASK = "18446744073709551615"
_UNKNOWN = 99


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
        subscription=_subscription(allow, block),
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


def _modify(
    world: World,
    *,
    app_id: str = "app",
    task_id: str | None = None,
    mode: int = 0,
    allow: Sequence[str] = (),
    block: Sequence[str] = (),
    paths: Sequence[str] = (),
) -> task_pb2.ModifyRecordInfoRequest:
    return task_pb2.ModifyRecordInfoRequest(
        app_id=app_id,
        task_id=world.witness.task_id if task_id is None else task_id,
        mode=task_pb2.RecordMode.ValueType(mode),
        subscription=_subscription(allow, block) if allow or block else None,
        update_mask=field_mask_pb2.FieldMask(paths=paths) if paths else None,
    )


def _subscription(allow: Sequence[str], block: Sequence[str]) -> task_pb2.Subscription:
    audio = task_pb2.UserFilter(allow_user_ids=allow, block_user_ids=block)
    return task_pb2.Subscription(audio=audio)


def _users(count: int) -> list[str]:
    return [f"user-{number}" for number in range(count)]


def _in_use(world: World) -> dict[str, str]:
    return {"roomId": world.room_id, "taskId": world.witness.task_id}


_START = "RecordingService.StartRecord"
_STOP = "RecordingService.StopRecord"
_MODIFY = "RecordingService.ModifyRecordInfo"
_TASKS = "RecordingService.DescribeTaskInfo"
_RECORD = "RecordingService.DescribeRecordInfo"
_LIST = "RecordingService.ListTasks"
_ALLOW, _BLOCK = "subscription.audio.allow_user_ids", "subscription.audio.block_user_ids"

_STARTS = (
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
        lambda _: _start(allow=_users(1001)),
        "TOO_MANY_ALLOWED_USERS",
        _ALLOW,
        metadata=lambda _: {"count": "1001", "limit": "1000"},
    ),
    case(_START, "1,001 blocked", lambda _: _start(block=_users(1001)), "TOO_MANY_BLOCKED_USERS", _BLOCK),
    case(
        _START,
        "21 allowed by gme",
        lambda world: _start(app_id="gme", room_id=world.room_id, allow=_users(21)),
        "TOO_MANY_ALLOWED_USERS",
        _ALLOW,
        metadata=lambda _: {"count": "21", "limit": "20"},
    ),
    case(
        _START,
        "21 blocked by gme",
        lambda world: _start(app_id="gme", room_id=world.room_id, block=_users(21)),
        "TOO_MANY_BLOCKED_USERS",
        _BLOCK,
        metadata=lambda _: {"count": "21", "limit": "20"},
    ),
    case(_START, "empty user", lambda _: _start(allow=["a", ""]), "FIELD_REQUIRED", f"{_ALLOW}[1]"),
    case(_START, "user with a control", lambda _: _start(block=["\x1b[2J"]), "INVALID_ID", f"{_BLOCK}[0]"),
    case(
        _START,
        "all users over-long",
        lambda _: _start(allow=["u" * 200] * 3),
        "INVALID_ID",
        *(f"{_ALLOW}[{index}]" for index in range(3)),
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


def _with_duration(
    request: task_pb2.StartRecordRequest, duration: duration_pb2.Duration
) -> task_pb2.StartRecordRequest:
    request.output.segment_duration.CopyFrom(duration)
    return request


def _of_task(
    rpc: str, request: type[task_pb2.StopRecordRequest] | type[task_pb2.DescribeRecordInfoRequest]
) -> Sequence[Case]:
    return (
        case(rpc, "no task", lambda _: request(app_id="app"), "FIELD_REQUIRED", "task_id"),
        case(rpc, "no number", lambda _: request(app_id="app", task_id="../1"), "INVALID_ID", "task_id"),
        case(
            rpc,
            "unknown task",
            lambda _: request(app_id="app", task_id=_NO_TASK),
            "TASK_NOT_FOUND",
            metadata=lambda _: {"appId": "app", "taskId": _NO_TASK},
        ),
        case(
            rpc,
            "task of another application",
            lambda world: request(app_id="app", task_id=world.foreign_task_id),
            "TASK_NOT_FOUND",
        ),
        case(
            rpc,
            "own task under another application",
            lambda world: request(app_id="gme", task_id=world.witness.task_id),
            "TASK_NOT_FOUND",
        ),
    )


_OTHERS = (
    *_of_task(_STOP, task_pb2.StopRecordRequest),
    *_of_task(_RECORD, task_pb2.DescribeRecordInfoRequest),
    case(
        _STOP,
        "unknown application",
        lambda world: task_pb2.StopRecordRequest(app_id="nobody", task_id=world.witness.task_id),
        "TASK_NOT_FOUND",
    ),
    case(
        _RECORD,
        "unknown application",
        lambda world: task_pb2.DescribeRecordInfoRequest(app_id="nobody", task_id=world.witness.task_id),
        "APPLICATION_NOT_FOUND",
    ),
    case(_MODIFY, "no task", lambda world: _modify(world, task_id="", mode=1), "FIELD_REQUIRED", "task_id"),
    case(_MODIFY, "unknown task", lambda world: _modify(world, task_id=_NO_TASK, mode=1), "TASK_NOT_FOUND"),
    case(
        _MODIFY,
        "task of another application",
        lambda world: _modify(world, task_id=world.foreign_task_id, mode=1),
        "TASK_NOT_FOUND",
    ),
    case(
        _MODIFY,
        "unknown application",
        lambda world: _modify(world, app_id="nobody", mode=1),
        "TASK_NOT_FOUND",
    ),
    case(
        _MODIFY,
        "stopped task",
        lambda world: _modify(world, task_id=world.ended_task_id, mode=1),
        "TASK_ENDED",
        metadata=lambda world: {"taskId": world.ended_task_id, "state": "TASK_STATE_COMPLETED"},
    ),
    case(_MODIFY, "nothing to change", _modify, "FIELD_REQUIRED", "update_mask"),
    case(
        _MODIFY,
        "a path that can't be changed",
        lambda world: _modify(world, mode=1, paths=["mode", "output"]),
        "INVALID_UPDATE_MASK",
        "update_mask",
        metadata=lambda _: {"path": "'output'"},
    ),
    case(
        _MODIFY,
        "a path below a field",
        lambda world: _modify(world, allow=["a"], paths=["subscription.audio"]),
        "INVALID_UPDATE_MASK",
        "update_mask",
    ),
    case(_MODIFY, "unknown mode", lambda world: _modify(world, mode=4), "INVALID_RECORD_MODE", "mode"),
    case(
        _MODIFY,
        "a mode that is masked and unset",
        lambda world: _modify(world, paths=["mode"]),
        "INVALID_RECORD_MODE",
        "mode",
    ),
    case(
        _MODIFY,
        "both lists",
        lambda world: _modify(world, allow=["a"], block=["a"]),
        "SUBSCRIPTION_CONFLICT",
        "subscription.audio",
    ),
    case(
        _MODIFY,
        "1,001 allowed",
        lambda world: _modify(world, allow=_users(1001)),
        "TOO_MANY_ALLOWED_USERS",
        _ALLOW,
    ),
    case(
        _MODIFY,
        "21 blocked by gme",
        lambda world: _modify(world, app_id="gme", task_id=world.foreign_task_id, block=_users(21)),
        "TOO_MANY_BLOCKED_USERS",
        _BLOCK,
    ),
    case(_MODIFY, "empty user", lambda world: _modify(world, block=[""]), "FIELD_REQUIRED", f"{_BLOCK}[0]"),
    case(
        _TASKS,
        "unknown application",
        lambda _: task_pb2.DescribeTaskInfoRequest(app_id="nobody", room_id="empty"),
        "APPLICATION_NOT_FOUND",
        metadata=lambda _: {"appId": "nobody"},
    ),
    case(
        _TASKS,
        "missing room",
        lambda _: task_pb2.DescribeTaskInfoRequest(app_id="app", room_id="nowhere"),
        "ROOM_NOT_FOUND",
    ),
    case(
        _TASKS,
        "no room",
        lambda _: task_pb2.DescribeTaskInfoRequest(app_id="app"),
        "FIELD_REQUIRED",
        "room_id",
    ),
    case(
        _LIST,
        "unknown application",
        lambda _: task_pb2.ListTasksRequest(app_id="nobody"),
        "APPLICATION_NOT_FOUND",
    ),
    case(
        _LIST,
        "unknown state",
        lambda _: task_pb2.ListTasksRequest(
            app_id="app", states=[task_pb2.TASK_STATE_IDLE, task_pb2.TaskState.ValueType(_UNKNOWN)]
        ),
        "INVALID_VALUE",
        "states[1]",
        metadata=lambda _: {"value": "99"},
    ),
    case(
        _LIST,
        "negative page",
        lambda _: task_pb2.ListTasksRequest(app_id="app", page_size=-1),
        "INVALID_VALUE",
        "page_size",
    ),
    case(
        _LIST,
        "a token that is none",
        lambda _: task_pb2.ListTasksRequest(app_id="app", page_token="😀"),
        "INVALID_PAGE_TOKEN",
        "page_token",
    ),
)

CASES = (*_STARTS, *_OTHERS)
