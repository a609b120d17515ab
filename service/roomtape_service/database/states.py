"""The edges along which tasks and segments may move (design §3), and the triggers that refuse any other.

The states are those of the contract; a state without edges is an end.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from roomtape.v1 import segment_pb2, task_pb2

__all__ = [
    "SEGMENT_EDGES",
    "TASK_EDGES",
    "TRIGGER_MESSAGE",
    "StateRule",
    "sources",
    "triggers",
    "triggers_removed",
]

TaskState: TypeAlias = task_pb2.TaskState.ValueType
SegmentState: TypeAlias = segment_pb2.SegmentState.ValueType

TASK_EDGES: Mapping[TaskState, frozenset[TaskState]] = {
    task_pb2.TASK_STATE_WAITING: frozenset(
        {task_pb2.TASK_STATE_RECORDING, task_pb2.TASK_STATE_FINALIZING, task_pb2.TASK_STATE_FAILED}
    ),
    task_pb2.TASK_STATE_RECORDING: frozenset(
        {task_pb2.TASK_STATE_IDLE, task_pb2.TASK_STATE_FINALIZING, task_pb2.TASK_STATE_FAILED}
    ),
    task_pb2.TASK_STATE_IDLE: frozenset(
        {task_pb2.TASK_STATE_RECORDING, task_pb2.TASK_STATE_FINALIZING, task_pb2.TASK_STATE_FAILED}
    ),
    task_pb2.TASK_STATE_FINALIZING: frozenset({task_pb2.TASK_STATE_COMPLETED, task_pb2.TASK_STATE_FAILED}),
    task_pb2.TASK_STATE_COMPLETED: frozenset(),
    task_pb2.TASK_STATE_FAILED: frozenset(),
}

SEGMENT_EDGES: Mapping[SegmentState, frozenset[SegmentState]] = {
    segment_pb2.SEGMENT_STATE_RECORDING: frozenset(
        {segment_pb2.SEGMENT_STATE_SPOOLED, segment_pb2.SEGMENT_STATE_LOST}
    ),
    segment_pb2.SEGMENT_STATE_SPOOLED: frozenset(
        {
            segment_pb2.SEGMENT_STATE_UPLOADING,
            segment_pb2.SEGMENT_STATE_ABANDONED,
            segment_pb2.SEGMENT_STATE_LOST,
        }
    ),
    segment_pb2.SEGMENT_STATE_UPLOADING: frozenset(
        {
            segment_pb2.SEGMENT_STATE_UPLOADED,
            segment_pb2.SEGMENT_STATE_ABANDONED,
            segment_pb2.SEGMENT_STATE_LOST,
        }
    ),
    segment_pb2.SEGMENT_STATE_UPLOADED: frozenset(
        {segment_pb2.SEGMENT_STATE_DELETED, segment_pb2.SEGMENT_STATE_EXPIRED}
    ),
    segment_pb2.SEGMENT_STATE_DELETED: frozenset(),
    segment_pb2.SEGMENT_STATE_EXPIRED: frozenset(),
    segment_pb2.SEGMENT_STATE_ABANDONED: frozenset(),
    segment_pb2.SEGMENT_STATE_LOST: frozenset(),
}

TRIGGER_MESSAGE = "state edge refused"

State = TypeVar("State", bound=int)


@dataclass(frozen=True, slots=True)
class StateRule:
    """The `state` column of one table and the edges it may take."""

    table: str
    edges: Mapping[TaskState, frozenset[TaskState]] | Mapping[SegmentState, frozenset[SegmentState]]


_RULES = (StateRule("tasks", TASK_EDGES), StateRule("segments", SEGMENT_EDGES))


def sources(edges: Mapping[State, frozenset[State]], target: State) -> list[State]:
    """The states from which `target` may be reached: what goes into `UPDATE … WHERE state IN (…)`."""
    return sorted(source for source, targets in edges.items() if target in targets)


def triggers(dialect: str) -> Iterator[str]:
    """DDL that makes the database refuse every edge not listed; `dialect` as SQLAlchemy names it."""
    for rule in _RULES:
        allowed = " OR ".join(
            f"(OLD.state = {source} AND NEW.state IN ({', '.join(map(str, sorted(targets)))}))"
            for source, targets in sorted(rule.edges.items())
            if targets
        )
        refused = f"OLD.state <> NEW.state AND NOT ({allowed})"
        name = f"{rule.table}_state_edges"
        if dialect == "sqlite":
            yield (
                f"CREATE TRIGGER {name} BEFORE UPDATE OF state ON {rule.table} WHEN {refused} "
                f"BEGIN SELECT RAISE(ABORT, '{rule.table}: {TRIGGER_MESSAGE}'); END"
            )
        else:
            yield (
                f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                f"RAISE EXCEPTION '{rule.table}: {TRIGGER_MESSAGE} (% to %)', OLD.state, NEW.state "
                "USING ERRCODE = 'check_violation'; END $$"
            )
            yield (
                f"CREATE TRIGGER {name} BEFORE UPDATE OF state ON {rule.table} FOR EACH ROW "
                f"WHEN ({refused}) EXECUTE FUNCTION {name}()"
            )


def triggers_removed(dialect: str) -> Iterator[str]:
    """DDL that takes away what `triggers` made, for a migration that changes the edges."""
    for rule in _RULES:
        name = f"{rule.table}_state_edges"
        if dialect == "sqlite":
            yield f"DROP TRIGGER IF EXISTS {name}"
        else:
            yield f"DROP TRIGGER IF EXISTS {name} ON {rule.table}"
            yield f"DROP FUNCTION IF EXISTS {name}()"
