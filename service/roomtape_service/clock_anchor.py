"""Where this machine's UTC stood, kept so that a new process finds the time of rooms where the last one left it.

The machine's clock may have been set between the two. The time since the machine started was not.
"""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from roomtape_service import failpoints

__all__ = ["ClockAnchor"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""New with each start of a Linux machine."""


@dataclass(frozen=True, slots=True)
class ClockAnchor:
    """UTC was the time since the machine's start, when it had this `boot_id`, plus `offset_ns`."""

    boot_id: str
    offset_ns: int

    def now_ns(self) -> int:
        """UTC now, if nobody had set the clock."""
        return _since_boot_ns() + self.offset_ns

    @staticmethod
    def read(path: Path) -> "ClockAnchor | None":
        """What was kept, if that was since the machine started. Raises OSError."""
        try:
            content = json.loads(path.read_text("utf-8"))
            anchor = ClockAnchor(str(content["boot_id"]), int(content["offset_ns"]))
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return None
        return anchor if anchor.boot_id == _boot_id() else None

    @staticmethod
    def keep(path: Path, now_ns: int) -> None:
        """UTC is `now_ns`. Where machines don't tell their starts apart, nothing is kept. Raises OSError."""
        boot_id = _boot_id()
        if not boot_id:
            return
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(ClockAnchor(boot_id, now_ns - _since_boot_ns()))))
        failpoints.hit("clock.keep")
        os.replace(draft, path)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def _since_boot_ns() -> int:
    # Of all clocks this one counts on while a machine sleeps. Systems without it have no id of their start either.
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
