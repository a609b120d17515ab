"""Warnings that come of all recordings of a task at once, told as one."""

from dataclasses import dataclass

from roomtape_service.clock import NANOSECONDS

__all__ = ["INTERVAL_NS", "PacedWarning", "WarningPace"]

INTERVAL_NS = 60 * NANOSECONDS
"""Of warnings of one task for one reason; each recording's own events tell what became of it."""
# Beyond so many, those that are over are forgotten.
_KEPT = 1000

_Key = tuple[str, int]


@dataclass(slots=True)
class _Told:
    at_ns: int
    held: int = 0


class WarningPace:
    """Remembers when a task's watchers were last warned for a reason, and how many warnings were held since."""

    def __init__(self, interval_ns: int = INTERVAL_NS) -> None:
        self._interval_ns = interval_ns
        self._told: dict[_Key, _Told] = {}

    def decide(self, key: _Key, now_ns: int) -> int:
        """For how many warnings the one that is there now stands, itself included; 0 when it is to be held."""
        told = self._told.get(key)
        if told is not None and now_ns < told.at_ns + self._interval_ns:
            told.held += 1
            return 0
        if len(self._told) >= _KEPT:
            since_ns = now_ns - self._interval_ns
            self._told = {key: each for key, each in self._told.items() if each.held or each.at_ns > since_ns}
        self._told[key] = _Told(now_ns)
        return 1 if told is None else told.held + 1

    def take_back(self, key: _Key, count: int) -> None:
        """What was decided last did not become durable, and is decided again."""
        told = self._told.get(key)
        if told is None:
            return
        if count:
            # The next one is told, and stands for as many.
            self._told[key] = _Told(told.at_ns - self._interval_ns, told.held + count - 1)
        else:
            told.held -= 1


class PacedWarning:
    """One warning on its way into the log: what is decided for it holds however often its unit of work runs."""

    def __init__(self, pace: WarningPace) -> None:
        self._pace = pace
        self._decided: tuple[_Key, int] | None = None

    def count(self, task_id: str, reason: int, now_ns: int) -> int:
        """As `WarningPace.decide`."""
        if self._decided is None:
            key = (task_id, reason)
            self._decided = (key, self._pace.decide(key, now_ns))
        return self._decided[1]

    def failed(self) -> None:
        """The unit of work is not durable."""
        if self._decided is not None:
            self._pace.take_back(*self._decided)
            self._decided = None
