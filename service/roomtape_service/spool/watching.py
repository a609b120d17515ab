"""Watches how full the spool is."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.spool.aside import is_aside
from roomtape_service.spool.generation import LOCK_NAME
from roomtape_service.spool.journal import EXTENSION
from roomtape_service.spool.quota import SpoolState, SpoolUse, Watermarks, decide, filled_percent

__all__ = ["OnSpoolChange", "SpoolStatistics", "SpoolWatch"]

_LOOK_SECONDS = 1.0
_SOON_SECONDS = 0.05
_HOLD_NS = 5 * NANOSECONDS
_LONGEST_HOLD_NS = 60 * NANOSECONDS
"""A disk that says that it has room and takes nothing is tried again after a time, and later and later."""
_LOG_NS = 60 * NANOSECONDS
"""How often the statistics go into the log."""

OnSpoolChange = Callable[[SpoolState, SpoolState], Awaitable[None]]
"""Called with the states before and after a change; what it raises is logged, and it is called again."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SpoolStatistics:
    """What is on the spool, as of the last look."""

    state: str
    files: int
    """Media files of segments."""
    used_bytes: int
    """Of everything in the spool's folder."""
    aside_files: int
    aside_bytes: int
    free_bytes: int
    """That its disk has for the spool and all else."""
    filled_percent: float
    """Of what the spool could hold."""
    oldest_unsent_seconds: float
    """How long ago the media file that was written to least lately was; 0 without one."""


@dataclass(slots=True)
class _Found:
    files: int = 0
    used_bytes: int = 0
    aside_files: int = 0
    aside_bytes: int = 0
    oldest_ns: int | None = None


class SpoolWatch:
    """Looks once a second. `state` is what holds now; `on_change` hears of each change, in order."""

    def __init__(
        self,
        spool_root: Path,
        marks: Watermarks,
        clock: Clock,
        on_change: OnSpoolChange,
        *,
        look_seconds: float = _LOOK_SECONDS,
    ) -> None:
        self.state = SpoolState.OK
        self._spool_root = spool_root
        self._marks = marks
        self._clock = clock
        self._on_change = on_change
        self._look_seconds = look_seconds
        self._told = SpoolState.OK
        self._soon = asyncio.Event()
        self._is_refused = False
        self._hold_ns = _HOLD_NS
        self._hold_until_ns = 0
        self._found = _Found()
        self._use = SpoolUse(0, 0)

    async def run(self) -> None:
        """Looks until it is cancelled."""
        logged_ns = self._clock.monotonic_ns()
        while True:
            await self.look()
            now_ns = self._clock.monotonic_ns()
            if now_ns - logged_ns >= _LOG_NS:
                logged_ns = now_ns
                log.info("spool_statistics", **asdict(self.statistics()))
            try:
                async with asyncio.timeout(self._look_seconds):
                    await self._soon.wait()
                self._soon.clear()
                await asyncio.sleep(_SOON_SECONDS)
            except TimeoutError:
                pass

    async def look(self) -> None:
        """Measures, decides, and tells what changed."""
        try:
            self._found, self._use = await asyncio.to_thread(self._measure)
        except OSError as error:
            log.error("spool_not_measured", error=str(error))
            return
        before = self.state
        self.state = SpoolState.FULL if self._is_held() else decide(before, self._use, self._marks)
        if self.state is not before:
            log.warning(
                "spool_state_changed",
                before=before.name,
                after=self.state.name,
                used_bytes=self._use.used_bytes,
                free_bytes=self._use.free_bytes,
            )
        if self.state is not self._told:
            try:
                await self._on_change(self._told, self.state)
            except Exception:
                # Whoever was to be told will be at the next look, say when the database has room again.
                log.exception("spool_change_not_told", state=self.state.name)
                return
            self._told = self.state

    def refused(self) -> None:
        """A write found the disk full, whatever its figures say: the state is FULL for some seconds."""
        self._is_refused = True
        self._soon.set()

    def has_room(self, size_bytes: int) -> bool:
        """Whether so many bytes more would leave room for tasks, as of the last look."""
        use = SpoolUse(self._use.used_bytes + size_bytes, self._use.free_bytes - size_bytes)
        return decide(self.state, use, self._marks) < SpoolState.REFUSING

    def statistics(self) -> SpoolStatistics:
        """A snapshot."""
        found = self._found
        age_ns = self._clock.now_ns() - found.oldest_ns if found.oldest_ns is not None else 0
        return SpoolStatistics(
            state=self.state.name,
            files=found.files,
            used_bytes=found.used_bytes,
            aside_files=found.aside_files,
            aside_bytes=found.aside_bytes,
            free_bytes=self._use.free_bytes,
            filled_percent=round(filled_percent(self._use, self._marks), 1),
            oldest_unsent_seconds=round(max(0, age_ns) / NANOSECONDS, 1),
        )

    def _is_held(self) -> bool:
        now_ns = self._clock.monotonic_ns()
        if self._is_refused:
            self._is_refused = False
            if now_ns >= self._hold_until_ns:
                is_again = now_ns - self._hold_until_ns < 2 * self._hold_ns
                self._hold_ns = min(2 * self._hold_ns, _LONGEST_HOLD_NS) if is_again else _HOLD_NS
            self._hold_until_ns = now_ns + self._hold_ns
        return now_ns < self._hold_until_ns

    def _measure(self) -> tuple[_Found, SpoolUse]:
        found = _Found()
        with os.scandir(self._spool_root) as folders:
            for folder in folders:
                if folder.is_dir(follow_symlinks=False):
                    _add_folder(folder, found)
                else:
                    found.used_bytes += folder.stat(follow_symlinks=False).st_size
        disk = os.statvfs(self._spool_root)
        return found, SpoolUse(found.used_bytes, disk.f_bavail * disk.f_frsize)


def _add_folder(folder: "os.DirEntry[str]", found: _Found) -> None:
    kept, is_worker = is_aside(folder.name), not folder.name.startswith(".")
    try:
        with os.scandir(folder) as files:
            for file in files:
                try:
                    status = file.stat(follow_symlinks=False)
                except OSError:
                    continue
                found.used_bytes += status.st_size
                if kept:
                    found.aside_files += 1
                    found.aside_bytes += status.st_size
                elif is_worker and file.name != LOCK_NAME and not file.name.endswith(f".{EXTENSION}"):
                    found.files += 1
                    found.oldest_ns = min(status.st_mtime_ns, found.oldest_ns or status.st_mtime_ns)
    except OSError:
        # Its last segment was stored meanwhile; or it can't be read, which must not hide how full the disk is.
        return
