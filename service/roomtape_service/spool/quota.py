"""How full the spool is, and what follows: pure decisions.

The spool may hold what its quota says, or without one what its disk has room for beside everything else on it; of the
disk the reserve is kept free, so that the database and what is being finished have room. As it fills, new tasks are
refused, and at last recording pauses; each state is left again only well below where it was entered.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

__all__ = ["SpoolState", "SpoolUse", "Watermarks", "decide", "filled_percent"]

_LEAVE_PERCENT: Final = 3
"""How far below a watermark a state is left, in hundredths of the capacity."""
_WARN_RESERVES: Final = 4
_REFUSE_RESERVES: Final = 2
"""Whatever the percentage, so many reserves must be free: others may fill the disk."""
_RESUME_RESERVES: Final = 1.25


class SpoolState(IntEnum):
    """From which watermark on what happens; each includes those before it."""

    OK = 0
    WARNING = 1
    """Applications with running tasks are told."""
    REFUSING = 2
    """No task is started."""
    FULL = 3
    """Nothing is recorded, and nothing acknowledged."""


@dataclass(frozen=True, slots=True)
class Watermarks:
    """What the settings say; `quota_bytes` 0 means the disk. Percentages are of the capacity."""

    quota_bytes: int
    warn_percent: float
    refuse_percent: float
    reserve_bytes: int


@dataclass(frozen=True, slots=True)
class SpoolUse:
    """What was measured."""

    used_bytes: int
    """Of everything in the spool's folder."""
    free_bytes: int
    """That its disk has for us."""


def capacity_bytes(use: SpoolUse, marks: Watermarks) -> int:
    """What the spool could hold."""
    of_disk = use.used_bytes + max(0, use.free_bytes - marks.reserve_bytes)
    return min(marks.quota_bytes, of_disk) if marks.quota_bytes else of_disk


def filled_percent(use: SpoolUse, marks: Watermarks) -> float:
    """How much of its capacity the spool holds."""
    capacity = capacity_bytes(use, marks)
    return 100.0 * use.used_bytes / capacity if capacity > 0 else 100.0


def decide(before: SpoolState, use: SpoolUse, marks: Watermarks) -> SpoolState:
    """The state after a look at the spool. A state is entered at once, and left when there is clearly more room."""
    entered = _state(use, marks, leave_percent=0, resume_reserves=1)
    if entered >= before:
        return entered
    left = _state(use, marks, leave_percent=_LEAVE_PERCENT, resume_reserves=_RESUME_RESERVES)
    return min(before, left)


def _state(use: SpoolUse, marks: Watermarks, *, leave_percent: float, resume_reserves: float) -> SpoolState:
    filled = filled_percent(use, marks) + leave_percent
    reserves = use.free_bytes / (marks.reserve_bytes * resume_reserves)
    over_quota = bool(marks.quota_bytes) and 100.0 * use.used_bytes / marks.quota_bytes + leave_percent >= 100
    if over_quota or reserves <= 1:
        return SpoolState.FULL
    if filled >= marks.refuse_percent or reserves < _REFUSE_RESERVES:
        return SpoolState.REFUSING
    if filled >= marks.warn_percent or reserves < _WARN_RESERVES:
        return SpoolState.WARNING
    return SpoolState.OK
