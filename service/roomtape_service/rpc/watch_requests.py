"""What requests of WatchService, and filters wherever they stand, may hold."""

from collections.abc import Iterator

from roomtape.v1 import error_pb2, event_pb2
from roomtape_service.rpc import validation

__all__ = ["check_list", "check_watch", "filter_problems"]

# A filter is looked at for each event; who needs more than this watches without.
_FILTER_ENTRIES = 1000
_PAGE_ORIGINS = (event_pb2.WATCH_ORIGIN_NOW, event_pb2.WATCH_ORIGIN_OLDEST)
# Longer waits are shortened; this is what a span in the contract can be at most.
_LONGEST_SECONDS = 315_576_000_000


def check_watch(request: event_pb2.WatchEventsRequest) -> None:
    """Raises Refusal for what no server could carry out."""
    validation.refuse(
        validation.app_id(request.app_id),
        validation.enum(request.origin, event_pb2.WatchOrigin, "origin"),
        *filter_problems(request.filter),
    )


def check_list(request: event_pb2.ListEventsRequest) -> None:
    """Raises Refusal for what no server could carry out."""
    validation.refuse(
        validation.app_id(request.app_id),
        validation.enum(request.origin, event_pb2.WatchOrigin, "origin", allowed=_PAGE_ORIGINS),
        *filter_problems(request.filter),
        validation.page_size(request.page_size),
        validation.duration(
            request.wait if request.HasField("wait") else None,
            "wait",
            least_seconds=0,
            most_seconds=_LONGEST_SECONDS,
        ),
    )


def filter_problems(wanted: event_pb2.EventFilter, field: str = "filter") -> Iterator[validation.Problem]:
    """What no event could meet, or is too much to look at for each event."""
    for name, count in (
        ("task_ids", len(wanted.task_ids)),
        ("room_ids", len(wanted.room_ids)),
        ("types", len(wanted.types)),
    ):
        if count > _FILTER_ENTRIES:
            yield validation.Problem(
                error_pb2.ERROR_REASON_INVALID_VALUE,
                f"{field}.{name}",
                f"has {count} entries; at most {_FILTER_ENTRIES} fit, or leave the condition out",
                {"count": str(count), "limit": str(_FILTER_ENTRIES)},
            )
            return
    found = [
        *(
            validation.task_id(value, f"{field}.task_ids[{index}]")
            for index, value in enumerate(wanted.task_ids)
        ),
        *(
            validation.room_id(value, f"{field}.room_ids[{index}]")
            for index, value in enumerate(wanted.room_ids)
        ),
        *(
            validation.enum(value, event_pb2.EventType, f"{field}.types[{index}]", required=True)
            for index, value in enumerate(wanted.types)
        ),
        validation.labels(wanted.labels, f"{field}.labels"),
    ]
    yield from (problem for problem in found if problem is not None)
