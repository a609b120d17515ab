"""The rule book: one row of parameters for each profile.

Sources: Tencent GME custom recording (segments of two hours, a closed microphone ends the segment, a task held for
twelve hours, lists of at most twenty users, one task a room) and GME StartRecord's error table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from roomtape.v1 import application_pb2

__all__ = ["PROFILES", "Profile", "SecondSession", "profile_of"]

_SECOND_NS = 1_000_000_000
_HOUR_NS = 3600 * _SECOND_NS
_GIBIBYTE = 1 << 30


class SecondSession(Enum):
    """What happens when a user who publishes opens another publish session in the same room."""

    REFUSE = "refuse"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Profile:
    """Parameters of the rule engine; times in nanoseconds."""

    name: str
    list_limit: int
    """Most entries of an allow or a block list."""
    segment_ns: int
    """A segment ends when it is this long."""
    segment_bytes: int
    """A segment ends before its largest file is larger than this."""
    mute_ends_segment: bool
    """Whether a muted microphone ends a single's segment; otherwise it becomes silence."""
    break_wait_ns: int
    """A break up to this long is filled with silence; a longer one ends the segment."""
    hold_ns: int
    """How long a task waits for somebody to come back after all have left."""
    concurrent_tasks: bool
    """Whether a room may have more than one running task."""
    second_session: SecondSession
    """What a second publish session of a user in a room does."""


PROFILES: Mapping[application_pb2.Profile.ValueType, Profile] = {
    application_pb2.PROFILE_ROOMTAPE: Profile(
        name="roomtape",
        list_limit=1000,
        segment_ns=2 * _HOUR_NS,
        segment_bytes=2 * _GIBIBYTE,
        mute_ends_segment=False,
        break_wait_ns=30 * _SECOND_NS,
        hold_ns=12 * _HOUR_NS,
        concurrent_tasks=False,
        second_session=SecondSession.REFUSE,
    ),
    application_pb2.PROFILE_GME: Profile(
        name="gme",
        list_limit=20,
        segment_ns=2 * _HOUR_NS,
        segment_bytes=2 * _GIBIBYTE,
        mute_ends_segment=True,
        break_wait_ns=0,
        hold_ns=12 * _HOUR_NS,
        concurrent_tasks=False,
        second_session=SecondSession.REPLACE,
    ),
}


def profile_of(profile: application_pb2.Profile.ValueType) -> Profile:
    """The row of `profile`; UNSPECIFIED and values of a later version are our own rules."""
    return PROFILES.get(profile, PROFILES[application_pb2.PROFILE_ROOMTAPE])
