"""The loss of a worker."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from roomtape_service.spool.recovery import Recovery

__all__ = ["WorkerLoss"]


@dataclass(frozen=True, slots=True)
class WorkerLoss:
    """A worker is gone: what it had, and what recovery found in its folder."""

    folder: Path
    recordings: Collection[str]
    """Recordings of the rooms that it had."""
    recovery: Recovery
