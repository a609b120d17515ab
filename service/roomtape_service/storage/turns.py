"""Whose segments are uploaded next, and by which of their application's lanes.

Applications take turns, so that none with many segments keeps the others waiting, and none with a store in trouble.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape_service.clock import NANOSECONDS
from roomtape_service.database import uploads
from roomtape_service.database.database import Database
from roomtape_service.database.lanes import FailingLane
from roomtape_service.database.segments import SegmentRow
from roomtape_service.storage.attempt import Attempts
from roomtape_service.storage.lane import Lane, Way
from roomtape_service.storage.notices import Notices
from roomtape_service.storage.store import StoreError

__all__ = ["LOOK_NS", "PARALLEL_UPLOADS", "Turn", "Turns"]

PARALLEL_UPLOADS = 16
"""How many attempts run at once, all applications together."""

LOOK_NS = 10 * NANOSECONDS
"""Wakes come from this process; what others put into the database, such as new settings, is found by looking."""

# Of the attempts, so many at most may be tries of stores in trouble: each can hang until its timeout.
_PARALLEL_TRIES = 8
_TOLD_AT_ONCE = 64

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """Segments that may start now, each with its lane, and when to look again (UTC nanoseconds)."""

    segments: Sequence[tuple[SegmentRow, Lane]]
    next_ns: int


class Turns:
    """Owns the ways of all applications."""

    def __init__(self, database: Database, attempts: Attempts, notices: Notices) -> None:
        self.ways: dict[str, Way] = {}
        """By application, of those with something to upload, or in trouble."""
        self._database = database
        self._attempts = attempts
        self._notices = notices
        self._last_app_id = ""

    def way(self, app_id: str) -> Way:
        """The application's."""
        return self.ways.setdefault(app_id, Way())

    def take_up(self, known: Iterable[FailingLane]) -> None:
        """Applications whose first store took nothing when the last node ended."""
        for each in known:
            way = self.way(each.app_id)
            way.first.store = each.store
            way.failing_ns, way.uses_second = each.failing_ns, each.uses_secondary

    def served(self, app_id: str) -> None:
        """A segment of the application was started: others are first the next time."""
        self._last_app_id = app_id

    def in_turn(self, app_ids: Iterable[str]) -> Sequence[str]:
        """Round robin: who comes after the last one that was served is first."""
        ordered = sorted(app_ids)
        first = next((n for n, app_id in enumerate(ordered) if app_id > self._last_app_id), 0)
        return ordered[first:] + ordered[:first]

    async def choose(self, earliest: Mapping[str, int], now_ns: int, slots: int) -> Turn:
        """What may start, of applications and when the first segment of each is due; at most `slots`."""
        self.ways = {i: way for i, way in self.ways.items() if i in earliest or not way.is_idle}
        for app_id in earliest:
            self.way(app_id)
        next_ns = now_ns + LOOK_NS
        found: list[Sequence[tuple[SegmentRow, Lane]]] = []
        tries = _PARALLEL_TRIES - sum(
            len(lane.in_hand)
            for way in self.ways.values()
            for lane in (way.first, way.second)
            if lane.trouble
        )
        for app_id in self.in_turn(earliest):
            try:
                turn = await self._choose_of(app_id, earliest[app_id], now_ns, slots, tries)
            except (SQLAlchemyError, OSError):
                raise
            except Exception:
                # Whatever is wrong with one application keeps no other waiting.
                _log.exception("uploads_not_chosen", app_id=app_id)
                continue
            tries -= sum(1 for _, lane in turn.segments if lane.trouble)
            found.append(turn.segments)
            next_ns = min(next_ns, turn.next_ns)
            if sum(map(len, found)) >= PARALLEL_UPLOADS:
                break
        chosen = [pair for each in zip_longest(*found) for pair in each if pair is not None]
        return Turn(chosen[:slots], next_ns)

    async def retry(self, app_id: str) -> None:
        """All segments of the application are due: its settings changed, or somebody mended its store."""
        await self._database.write(
            lambda unit: uploads.hasten_uploads(unit.connection, app_id), name="storage.turns.Turns.retry"
        )
        if way := self.ways.get(app_id):
            way.first.next_ns = way.second.next_ns = 0

    async def is_changed(self, app_id: str) -> bool:
        """Whether the application is another one than when its stores were last asked."""
        way, revision = self.way(app_id), await self._attempts.revision(app_id)
        is_changed = revision != way.revision
        way.revision = revision
        return is_changed

    async def _choose_of(self, app_id: str, due_ns: int, now_ns: int, slots: int, tries: int) -> Turn:
        way = self.ways[app_id]
        next_ns = await self._choose_lane(app_id, way, now_ns)
        segments = await self._choose_segments(app_id, way, due_ns, now_ns, slots, tries)
        next_ns = min(next_ns, _look_ns(way, due_ns, now_ns))
        if way.lane.trouble and max(due_ns, way.lane.next_ns) > now_ns:
            next_ns = min(next_ns, await self._wait(app_id, way, way.lane.trouble, now_ns))
        return Turn(segments, next_ns)

    async def _choose_lane(self, app_id: str, way: Way, now_ns: int) -> int:
        """Decides by which lane segments go. Returns when that may change."""
        if way.failing_ns is None or (way.first.trouble is None and not way.uses_second):
            return now_ns + LOOK_NS
        try:
            _, places = await self._attempts.destinations(app_id)
        except StoreError:
            return now_ns + LOOK_NS
        if places.second is None:
            way.uses_second = False
        elif not way.uses_second and way.first.trouble is not None:
            switch_ns = way.failing_ns + places.second_after_ns
            if switch_ns > now_ns:
                return switch_ns
            first, second = places.first.store.identity, places.second.store.identity
            await self._notices.switch(app_id, first, second, way.first.trouble)
            way.uses_second = True
            return now_ns
        return now_ns + LOOK_NS

    async def _choose_segments(
        self, app_id: str, way: Way, due_ns: int, now_ns: int, slots: int, tries: int
    ) -> Sequence[tuple[SegmentRow, Lane]]:
        if due_ns > now_ns:
            return ()
        room = min(way.lane.free(now_ns), slots)
        if way.lane.trouble:
            room = min(room, tries)
        # One segment tries whether the first store takes something again.
        can_probe = way.uses_second and not way.first.in_hand
        probes = min(1, way.first.free(now_ns), slots, tries) if can_probe else 0
        if room + probes <= 0:
            return ()
        rows = list(await self._due(app_id, way, now_ns, max(0, room) + max(0, probes)))
        chosen: list[tuple[SegmentRow, Lane]] = []
        if probes > 0 and rows:
            # Rather one that was not begun elsewhere.
            probe = min(rows, key=lambda row: row.upload_attempts)
            rows.remove(probe)
            chosen.append((probe, way.first))
        return [*chosen, *((row, way.lane) for row in rows[: max(0, room)])]

    async def _due(self, app_id: str, way: Way, now_ns: int, limit: int) -> Sequence[SegmentRow]:
        async def read(connection: AsyncConnection) -> Sequence[SegmentRow]:
            in_hand = sorted(way.in_hand)
            return await uploads.due_segments(connection, app_id, now_ns, without=in_hand, limit=limit)

        return await self._database.read(read)

    async def _wait(self, app_id: str, way: Way, trouble: StoreError, now_ns: int) -> int:
        """Segments wait with their lane; their watchers hear why without a try for each. Returns when to look again."""
        if await self.is_changed(app_id):
            await self.retry(app_id)
            return now_ns
        rows = await self._due(app_id, way, now_ns, _TOLD_AT_ONCE)
        # Who was told lines up behind who was not, so that the next look finds those.
        return now_ns if await self._notices.tell(rows, trouble, now_ns) else now_ns + LOOK_NS


def _look_ns(way: Way, due_ns: int, now_ns: int) -> int:
    """When something of the way is due that is not yet."""
    times = [max(due_ns, way.lane.next_ns)]
    if way.uses_second:
        times.append(max(due_ns, way.first.next_ns))
    return min((time_ns for time_ns in times if time_ns > now_ns), default=now_ns + 3600 * NANOSECONDS)
