"""The checkers of what watchers are promised: good traffic passes all, and each fault fails the one that it breaks."""

from collections.abc import Sequence

import pytest

from roomtape.v1 import event_pb2, task_pb2
from roomtape_service.events import token
from tests.support.databases import APP, ROOM, warning
from tests.support.watch_guarantees import GUARANTEES, Violation
from tests.support.watch_traffic import Call, Stream, Traffic

Response = event_pb2.WatchEventsResponse
IDLE = event_pb2.BOOKMARK_REASON_IDLE
EPOCH = "00112233445566ff"
TASK = "11"


def logged(sequence: int) -> event_pb2.Event:
    """An event of a log in which the odd ones are of a task."""
    event = warning(str(sequence), task_id=TASK if sequence % 2 else "")
    event.sequence = sequence
    event.task_sequence = (sequence + 1) // 2 if sequence % 2 else 0
    return event


def message(item: event_pb2.Event | int, reason: event_pb2.BookmarkReason.ValueType = IDLE) -> Response:
    """An event, or a bookmark at a sequence."""
    if isinstance(item, int):
        bookmark = event_pb2.Bookmark(reason=reason, sequence=item)
        return Response(resume_token=token.encode(EPOCH, APP, item), bookmark=bookmark)
    return Response(resume_token=token.encode(EPOCH, APP, item.sequence), event=item)


def heard(*items: event_pb2.Event | int, after: int | None = None, end: str = "") -> Stream:
    """A stream of all that are of the task, from the start or a token on."""
    first = message(after or 0, event_pb2.BOOKMARK_REASON_STARTED)
    wanted = event_pb2.EventFilter(task_ids=[TASK])
    messages = [first, *(message(item) for item in items)]
    return Stream(wanted, event_pb2.WATCH_ORIGIN_OLDEST, after, 1, messages, end)


def changed(event: event_pb2.Event) -> event_pb2.Event:
    """The same with another text."""
    other = event_pb2.Event()
    other.CopyFrom(event)
    other.warning.message += "!"
    return other


LOG = [logged(sequence) for sequence in range(1, 7)]
GOOD = [heard(LOG[0], 2, after=None, end="UNAVAILABLE"), heard(LOG[2], LOG[4], 6, after=2)]
FAULTS: dict[str, list[list[Stream]]] = {
    "ordered": [[heard(LOG[2], LOG[0], LOG[4], 6)]],
    "unique": [[heard(LOG[0], LOG[0], LOG[2], LOG[4])], [*GOOD, heard(changed(LOG[4]), 6, after=4)]],
    "reliable": [[heard(LOG[0], LOG[4])], [heard(LOG[0], LOG[2])], [heard(LOG[0], LOG[2], 6)], [GOOD[0]]],
    "resumable": [
        [GOOD[0], heard(LOG[2], LOG[4], 6, after=2, end="EVENT_HISTORY_LOST")],
        [Stream(GOOD[0].wanted, event_pb2.WATCH_ORIGIN_OLDEST, 2, 1, GOOD[0].messages), *GOOD],
    ],
    "bookmarkable": [
        [heard(LOG[0], LOG[2], LOG[4], 6, 5)],
        [heard(LOG[0], LOG[2], 5, LOG[4])],
        [heard(LOG[0], LOG[2], LOG[4], 9)],
        [heard(LOG[0], LOG[2], LOG[4], end="SILENT")],
        [Stream(GOOD[0].wanted, event_pb2.WATCH_ORIGIN_OLDEST, None, 1, heard(*LOG[:5:2]).messages[1:])],
    ],
    "filterable": [[heard(*LOG)]],
    "atomic": [[heard(LOG[0], changed(LOG[2]), LOG[4])]],
}


def traffic_of(streams: Sequence[Stream], calls: Sequence[Call] = ()) -> Traffic:
    return Traffic(APP, EPOCH, LOG, [streams], calls, {})


def violated(traffic: Traffic) -> list[str]:
    """The names of the guarantees that do not hold."""
    names = []
    for guarantee in GUARANTEES:
        try:
            guarantee(traffic)
        except Violation as violation:
            names.append(str(violation).partition(":")[0])
    return names


def test_good_traffic_violates_nothing() -> None:
    assert violated(traffic_of(GOOD)) == []


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_a_violation_of_the_guarantee_that_it_breaks(name: str) -> None:
    for streams in FAULTS[name]:
        assert name in violated(traffic_of(streams))


def test_a_call_without_its_event_or_with_two_is_a_violation() -> None:
    call = Call(event_pb2.EVENT_TYPE_ROOM_CREATED, "elsewhere", sent_ns=1, answered_ns=2)
    assert violated(traffic_of(GOOD, [call])) == ["atomic"]
    twice = Call(event_pb2.EVENT_TYPE_WARNING, ROOM, sent_ns=1)
    assert violated(traffic_of(GOOD, [twice])) == ["atomic"]


def test_a_snapshot_that_is_not_of_its_place_is_a_violation() -> None:
    end = message(2, event_pb2.BOOKMARK_REASON_SNAPSHOT_END)
    started = message(0, event_pb2.BOOKMARK_REASON_STARTED)
    item = Response(snapshot=event_pb2.SnapshotItem(task=task_pb2.Task(task_id=TASK)))
    for before in (started, item):
        before.resume_token = token.encode_snapshot(EPOCH, APP)
    rest = [message(event) for event in LOG[2:]]
    for messages, expected in (([started, end, *rest], []), ([started, item, end, *rest], ["atomic"])):
        stream = Stream(event_pb2.EventFilter(), event_pb2.WATCH_ORIGIN_SNAPSHOT, None, 1, messages)
        assert violated(traffic_of([stream])) == expected
