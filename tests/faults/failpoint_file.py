"""The file that arms failpoints in a running service, and the log of what was hit."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from tests.support.failpoints import count_hits_of

__all__ = ["FailpointFile"]


class FailpointFile:
    """Processes read it again at their next hit after each change."""

    def __init__(self, folder: Path, part_bytes: int) -> None:
        folder.mkdir()
        self.path = folder / "failpoints.json"
        self._log = folder / "hits"
        count_hits_of(self._log)
        self._part_bytes = part_bytes
        self._arms: Sequence[dict[str, object]] = ()
        self._clock_offset_seconds = 0.0
        self._write()

    def arm(self, *arms: dict[str, object]) -> None:
        """These act from now on, and no others."""
        self._arms = arms
        self._write()

    def set_clock(self, offset_seconds: float) -> None:
        """For processes that start from now on."""
        self._clock_offset_seconds = offset_seconds
        self._write()

    @property
    def fired(self) -> int:
        """How often something was done."""
        return sum(len(line.split()) > 2 for line in self._lines())

    def hits(self) -> set[str]:
        """The names that were hit so far, and those whose arms acted."""
        return {line.split()[0] for line in self._lines()}

    def killed_at(self) -> set[str]:
        """The names at which a process was killed."""
        return {line.split()[0] for line in self._lines() if line.endswith(" kill")}

    def _lines(self) -> Sequence[str]:
        return self._log.read_text("utf-8").splitlines() if self._log.exists() else ()

    def _write(self) -> None:
        content = {
            "log": str(self._log),
            "arms": list(self._arms),
            "clock_offset_seconds": self._clock_offset_seconds,
            "part_bytes": self._part_bytes,
        }
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(content))
        os.replace(draft, self.path)
