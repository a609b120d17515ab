"""RecordingService but StartRecord: requests that are refused."""

from collections.abc import Sequence

from google.protobuf import field_mask_pb2

from roomtape.v1 import task_pb2
from tests.integration.bad_input.cases import Case, case
from tests.integration.bad_input.start_cases import ALLOW, BLOCK, subscription, users
from tests.integration.bad_input.world import World

__all__ = ["CASES"]

_NO_TASK = "18446744073709551615"
_UNKNOWN = 99


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
        subscription=subscription(allow, block) if allow or block else None,
        update_mask=field_mask_pb2.FieldMask(paths=paths) if paths else None,
    )


_STOP = "RecordingService.StopRecord"
_MODIFY = "RecordingService.ModifyRecordInfo"
_TASKS = "RecordingService.DescribeTaskInfo"
_RECORD = "RecordingService.DescribeRecordInfo"
_LIST = "RecordingService.ListTasks"


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


CASES = (
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
        lambda world: _modify(world, allow=users(1001)),
        "TOO_MANY_ALLOWED_USERS",
        ALLOW,
    ),
    case(
        _MODIFY,
        "21 blocked by gme",
        lambda world: _modify(world, app_id="gme", task_id=world.foreign_task_id, block=users(21)),
        "TOO_MANY_BLOCKED_USERS",
        BLOCK,
    ),
    case(_MODIFY, "empty user", lambda world: _modify(world, block=[""]), "FIELD_REQUIRED", f"{BLOCK}[0]"),
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
