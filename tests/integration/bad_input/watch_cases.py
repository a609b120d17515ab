"""WatchService: requests that are refused, as a stream and page by page."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from google.protobuf.duration_pb2 import Duration

from roomtape.v1 import event_pb2
from roomtape_service.events import token
from tests.integration.bad_input.cases import Case, case
from tests.integration.bad_input.world import World

__all__ = ["CASES"]

_WATCH = "WatchService.WatchEvents"
_LIST = "WatchService.ListEvents"
_UNKNOWN = 99
_OTHER_EPOCH = "0" * 16
_LOST = token.encode(_OTHER_EPOCH, "app", 1)
_FOREIGN = token.encode(_OTHER_EPOCH, "gme", 1)
_Request: TypeAlias = "event_pb2.WatchEventsRequest | event_pb2.ListEventsRequest"
_REQUESTS: Mapping[str, Callable[[], _Request]] = {
    _WATCH: event_pb2.WatchEventsRequest,
    _LIST: event_pb2.ListEventsRequest,
}


def _of_app(rpc: str, app_id: str, _: World) -> _Request:
    request = _REQUESTS[rpc]()
    request.app_id = app_id
    return request


def _after(rpc: str, resume_token: str, world: World) -> _Request:
    request = _of_app(rpc, "app", world)
    request.resume_token = resume_token
    return request


def _from(rpc: str, origin: int, world: World) -> _Request:
    request = _of_app(rpc, "app", world)
    request.origin = event_pb2.WatchOrigin.ValueType(origin)
    return request


def _with(rpc: str, wanted: Callable[[World], event_pb2.EventFilter], world: World) -> _Request:
    request = _of_app(rpc, "app", world)
    request.filter.CopyFrom(wanted(world))
    return request


def _types(*types: int) -> Callable[[World], event_pb2.EventFilter]:
    return lambda _: event_pb2.EventFilter(types=[event_pb2.EventType.ValueType(each) for each in types])


def _tasks(*task_ids: str) -> Callable[[World], event_pb2.EventFilter]:
    return lambda _: event_pb2.EventFilter(task_ids=task_ids)


def _rooms(*room_ids: str) -> Callable[[World], event_pb2.EventFilter]:
    return lambda _: event_pb2.EventFilter(room_ids=room_ids)


def _labels(labels: Mapping[str, str]) -> Callable[[World], event_pb2.EventFilter]:
    return lambda _: event_pb2.EventFilter(labels=labels)


def _of_both(rpc: str) -> Sequence[Case]:
    after, wants = partial(partial, _after, rpc), partial(partial, _with, rpc)
    bad_token = ("INVALID_RESUME_TOKEN", "resume_token")
    return (
        case(rpc, "no application", partial(_of_app, rpc, ""), "FIELD_REQUIRED", "app_id"),
        case(rpc, "unknown application", partial(_of_app, rpc, "nobody"), "APPLICATION_NOT_FOUND"),
        case(rpc, "a token that is none", after("\U0001f600"), *bad_token),
        case(rpc, "an empty token", after(""), *bad_token),
        case(rpc, "a huge token", after("A" * 100_000), *bad_token),
        case(rpc, "a truncated token", after(_LOST[:-4]), *bad_token),
        case(rpc, "a token with another character", after("B" + _LOST[1:]), *bad_token),
        case(rpc, "a token of another application", after(_FOREIGN), *bad_token),
        case(rpc, "a token of a lost log", after(_LOST), "EVENT_HISTORY_LOST"),
        case(rpc, "unknown origin", partial(_from, rpc, _UNKNOWN), "INVALID_VALUE", "origin"),
        case(
            rpc,
            "unknown type",
            wants(_types(event_pb2.EVENT_TYPE_GAP, 999)),
            "INVALID_VALUE",
            "filter.types[1]",
            metadata=lambda _: {"value": "999"},
        ),
        case(
            rpc,
            "the type that never comes",
            wants(_types(event_pb2.EVENT_TYPE_UNSPECIFIED)),
            "INVALID_VALUE",
            "filter.types[0]",
        ),
        case(
            rpc,
            "1,001 types",
            wants(_types(*[event_pb2.EVENT_TYPE_GAP] * 1001)),
            "INVALID_VALUE",
            "filter.types",
            metadata=lambda _: {"count": "1001", "limit": "1000"},
        ),
        case(rpc, "an empty task id", wants(_tasks("")), "FIELD_REQUIRED", "filter.task_ids[0]"),
        case(rpc, "a name for a task id", wants(_tasks("1", "mine")), "INVALID_ID", "filter.task_ids[1]"),
        case(
            rpc,
            "an unknown task",
            wants(_tasks("1")),
            "TASK_NOT_FOUND",
            metadata=lambda _: {"appId": "app", "taskId": "1"},
        ),
        case(
            rpc,
            "a task of another application",
            wants(lambda world: event_pb2.EventFilter(task_ids=[world.ended_task_id, world.foreign_task_id])),
            "TASK_NOT_FOUND",
            metadata=lambda world: {"appId": "app", "taskId": world.foreign_task_id},
        ),
        case(rpc, "a control in a room id", wants(_rooms("a\n")), "INVALID_ID", "filter.room_ids[0]"),
        case(rpc, "what is no label", wants(_labels({"a b": "c"})), "INVALID_VALUE", "filter.labels"),
        case(rpc, "a huge label", wants(_labels({"a": "b" * 257})), "INVALID_VALUE", "filter.labels.a"),
        case(
            rpc,
            "33 labels",
            wants(_labels({f"k{number}": "" for number in range(33)})),
            "INVALID_VALUE",
            "filter.labels",
            metadata=lambda _: {"count": "33", "limit": "32"},
        ),
    )


def _page(*, size: int = 0, wait: Duration | None = None) -> Callable[[World], event_pb2.ListEventsRequest]:
    return lambda _: event_pb2.ListEventsRequest(app_id="app", page_size=size, wait=wait)


CASES = (
    *_of_both(_WATCH),
    *_of_both(_LIST),
    case(
        _LIST,
        "a snapshot",
        partial(_from, _LIST, event_pb2.WATCH_ORIGIN_SNAPSHOT),
        "INVALID_VALUE",
        "origin",
    ),
    case(
        _LIST,
        "a token that leads to a snapshot",
        partial(_after, _LIST, token.encode_snapshot(_OTHER_EPOCH, "app")),
        "INVALID_RESUME_TOKEN",
        "resume_token",
    ),
    case(_LIST, "a negative page", _page(size=-1), "INVALID_VALUE", "page_size"),
    case(_LIST, "a negative wait", _page(wait=Duration(seconds=-1)), "INVALID_VALUE", "wait"),
    case(_LIST, "a wait that is none", _page(wait=Duration(seconds=1, nanos=-1)), "INVALID_VALUE", "wait"),
)
