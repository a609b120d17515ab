"""What the contract promises to watchers, each promise a checker of recorded traffic.

- ordered: what comes first in the log comes first in a stream.
- unique: within a stream nothing comes twice, and a sequence is the same event whenever it comes.
- reliable: between two messages of a stream nothing is missing, and in the end nothing at all.
- resumable: a stream goes on right behind its token, which is never refused.
- bookmarkable: a bookmark's place has everything before it in front of it, and nothing of that behind it.
- filterable: what does not match does not come.
- atomic: a call that was answered made its events once, before its reply; what anybody saw was durable; a snapshot is
  the state as of its place.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from roomtape.v1 import event_pb2, task_pb2
from tests.support.watch_traffic import Stream, Traffic, matches, place_of

__all__ = ["GUARANTEES", "Violation"]

STARTED = event_pb2.BOOKMARK_REASON_STARTED
DRAINING = event_pb2.BOOKMARK_REASON_DRAINING

_ENDED = frozenset({task_pb2.TASK_STATE_COMPLETED, task_pb2.TASK_STATE_FAILED})

# A connection that broke, a server that stops or is stopped, and a watcher that read nothing for too long.
_ENDS = frozenset({"", "OK", "CANCELLED", "UNAVAILABLE", "DRAINING", "STREAM_STALLED"})


class Violation(AssertionError):
    """A guarantee that does not hold; begins with its name."""


def ordered(traffic: Traffic) -> None:
    """Raises Violation."""
    for stream in traffic.streams:
        sequences = [event.sequence for event in stream.events]
        _require(sequences == sorted(sequences), "ordered", f"a stream has {sequences}")
        of_tasks: dict[str, list[int]] = defaultdict(list)
        for event in stream.events:
            of_tasks[event.task_id].append(event.task_sequence)
        for task_id, numbers in of_tasks.items():
            _require(numbers == sorted(numbers), "ordered", f"of task {task_id} a stream has {numbers}")


def unique(traffic: Traffic) -> None:
    """Raises Violation."""
    known: dict[int, event_pb2.Event] = {}
    for stream in traffic.streams:
        sequences = [event.sequence for event in stream.events]
        _require(len(sequences) == len(set(sequences)), "unique", f"a stream has {sequences}")
        for event in stream.events:
            before = known.setdefault(event.sequence, event)
            _require(before == event, "unique", f"{event.sequence} was another event before: {before}")


def reliable(traffic: Traffic) -> None:
    """Raises Violation."""
    for stream in traffic.streams:
        if stream.started is not None:
            expected = _wanted(traffic, stream, stream.started, stream.place)
            came = {event.sequence for event in stream.events}
            missing = [sequence for sequence in expected if sequence not in came]
            _require(
                not missing,
                "reliable",
                f"{missing} did not come between {stream.started} and {stream.place}; the stream "
                f"ended with {stream.end!r}",
            )
    if not traffic.is_complete:
        return
    for streams in traffic.watchers:
        begun = [stream for stream in streams if stream.started is not None]
        _require(bool(begun), "reliable", "a stream never started")
        # What is in a snapshot need not come as events.
        snapshots = [index for index, stream in enumerate(begun) if stream.is_snapshot]
        begun = begun[snapshots[-1] if snapshots else 0 :]
        first, last = begun[0], begun[-1]
        came = {event.sequence for stream in begun for event in stream.events}
        expected = _wanted(traffic, first, first.started or 0, len(traffic.log))
        missing = [sequence for sequence in expected if sequence not in came]
        _require(
            not missing, "reliable", f"a watcher never got {missing}; its last stream ended {last.end!r}"
        )


def resumable(traffic: Traffic) -> None:
    """Raises Violation."""
    for streams in traffic.watchers:
        for stream in streams:
            _require(
                stream.end in _ENDS, "resumable", f"a stream after {stream.after} ended with {stream.end}"
            )
            if stream.started is None:
                continue
            if stream.after is not None:
                expected = stream.after
            elif stream.origin == event_pb2.WATCH_ORIGIN_OLDEST:
                expected = 0
            else:
                continue
            _require(
                stream.started == expected,
                "resumable",
                f"a stream after {expected} began at {stream.started}",
            )


def bookmarkable(traffic: Traffic) -> None:
    """Raises Violation."""
    for stream in traffic.streams:
        _require(stream.end != "SILENT", "bookmarkable", f"silence after {stream.place}")
        last, is_bookmark, beginning = -1, False, stream.beginning
        for index, message in enumerate(stream.messages):
            place, reason = place_of(message), message.bookmark.reason
            found = traffic.decode(message.resume_token)
            if beginning is None or index < beginning:
                leads_right = found.is_snapshot
            else:
                leads_right = not found.is_snapshot and found.sequence == place
            _require(
                leads_right and found.epoch == traffic.epoch,
                "bookmarkable",
                f"the token of {place} is {found}",
            )
            _require((reason == STARTED) == (index == 0), "bookmarkable", f"message {index} is {message}")
            is_behind = place <= last if is_bookmark and message.HasField("event") else place < last
            _require(not is_behind, "bookmarkable", f"{place} comes after {last}")
            is_last = index == len(stream.messages) - 1
            _require(is_last or reason != DRAINING, "bookmarkable", "something comes after DRAINING")
            last, is_bookmark = place, message.HasField("bookmark")
        _require(last <= len(traffic.log), "bookmarkable", f"{last} lies behind the end of the log")


def filterable(traffic: Traffic) -> None:
    """Raises Violation."""
    for stream in traffic.streams:
        for event in stream.events:
            _require(matches(stream.wanted, event), "filterable", f"{stream.wanted} took {event}")


def atomic(traffic: Traffic) -> None:
    """Raises Violation."""
    log = traffic.log
    _require([event.sequence for event in log] == list(range(1, len(log) + 1)), "atomic", "the log has holes")
    for stream in traffic.streams:
        for event in stream.events:
            durable = event.sequence <= len(log) and log[event.sequence - 1] == event
            _require(durable, "atomic", f"a watcher saw {event.sequence}, which the log does not have so")
    _calls_made_their_events(traffic)
    _states_are_those_of_events(traffic)
    for stream in traffic.streams:
        if stream.is_snapshot and stream.started is not None and stream.wanted == event_pb2.EventFilter():
            _snapshot_is_of_its_place(traffic, stream, stream.started)


def _calls_made_their_events(traffic: Traffic) -> None:
    made: dict[tuple[str, int], list[event_pb2.Event]] = defaultdict(list)
    for event in traffic.log:
        made[event.room_id, event.type].append(event)
    for call in traffic.calls:
        name = f"{event_pb2.EventType.Name(call.type)} of {call.room_id}"
        events = made[call.room_id, call.type]
        expected = 1 if call.answered_ns else len(events)
        _require(len(events) == expected <= 1, "atomic", f"{name} is {len(events)} times in the log")
        if not call.answered_ns:
            continue
        (event,) = events
        # From the token of a start its event is the first that comes.
        leads_to = None if call.token_sequence is None else call.token_sequence + 1
        _require(leads_to in (None, event.sequence), "atomic", f"the token of {name} leads to {leads_to}")
        _require(event.task_sequence <= call.task_sequence, "atomic", f"the reply of {name} is of before it")
        for stream in traffic.streams:
            if stream.opened_ns > call.answered_ns and stream.started is not None and stream.after is None:
                is_known = stream.origin == event_pb2.WATCH_ORIGIN_OLDEST or stream.started >= event.sequence
                _require(is_known, "atomic", f"{name} came to who watched after its reply, as news")


def _states_are_those_of_events(traffic: Traffic) -> None:
    states: dict[str, int] = {}
    numbers: dict[str, int] = defaultdict(int)
    for event, follower in zip(traffic.log, [*traffic.log[1:], event_pb2.Event()], strict=True):
        if not event.task_id:
            continue
        numbers[event.task_id] += 1
        _require(event.task_sequence == numbers[event.task_id], "atomic", f"task {event.task_id} has a hole")
        if event.HasField("task"):
            states[event.task_id] = event.task.task.state
        if event.type == event_pb2.EVENT_TYPE_TASK_STOPPED:
            # One unit of work.
            is_whole = (follower.task_id, follower.type) == (
                event.task_id,
                event_pb2.EVENT_TYPE_TASK_STATE_CHANGED,
            )
            _require(is_whole, "atomic", f"only a part of the stop of {event.task_id} is there")
    _require(
        states == dict(traffic.task_states), "atomic", f"{states} by events, {traffic.task_states} by state"
    )


def _snapshot_is_of_its_place(traffic: Traffic, stream: Stream, place: int) -> None:
    rooms: set[str] = set()
    tasks: dict[str, int] = {}
    for event in traffic.log[:place]:
        if event.type == event_pb2.EVENT_TYPE_ROOM_CREATED:
            rooms.add(event.room_id)
        elif event.type == event_pb2.EVENT_TYPE_ROOM_CLOSED:
            rooms.remove(event.room_id)
        elif event.HasField("task"):
            tasks[event.task_id] = event.task.task.state
    running = {task_id: state for task_id, state in tasks.items() if state not in _ENDED}
    items = [(item.room.room_id, item.task) for item in stream.items]
    seen_rooms = [room_id for room_id, _ in items if room_id]
    seen_tasks = {task.task_id: task.state for _, task in items if task.task_id}
    _require(
        sorted(rooms) == sorted(seen_rooms) and running == seen_tasks,
        "atomic",
        f"the snapshot of {place} has {seen_rooms} and {seen_tasks} instead of {rooms} and {running}",
    )


def _wanted(traffic: Traffic, stream: Stream, after: int, through: int) -> Sequence[int]:
    return [event.sequence for event in traffic.log[after:through] if matches(stream.wanted, event)]


def _require(condition: bool, guarantee: str, otherwise: str) -> None:
    if not condition:
        raise Violation(f"{guarantee}: {otherwise}")


GUARANTEES: Iterable[Callable[[Traffic], None]] = (
    ordered,
    unique,
    reliable,
    resumable,
    bookmarkable,
    filterable,
    atomic,
)
"""All of them; each raises Violation."""
