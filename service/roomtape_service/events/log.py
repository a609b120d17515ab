"""The event log: one for each application, read by any number of cursors."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from roomtape.v1 import error_pb2, event_pb2
from roomtape_service.database import Database
from roomtape_service.database import events as event_rows
from roomtape_service.errors import Refusal
from roomtape_service.events import token
from roomtape_service.events.cursor import Cursor
from roomtape_service.events.filter import EventFilter
from roomtape_service.events.pages import PAGE_EVENTS, Pages
from roomtape_service.events.tail import LoggedEvent, Tail

__all__ = ["EventLog"]

# Events of a watched application in memory: a watcher that is slow for a moment need not read the database.
_TAIL_EVENTS = 1024
# Read ahead when an application is watched again, since watchers come back with tokens close to the head.
_FIRST_EVENTS = 256
# Cursors that read the database at once; the others wait, and leave its connections to the calls.
_READS = 2
# A log that nobody reads stays in memory for as long, for those who read it page by page.
_LINGER_SECONDS = 30.0
# How often it is looked for commits of which nobody told: the answer was lost, or another node made them.
_LOOK_SECONDS = 1.0
# Deleted in one unit of work, so that writers wait for milliseconds only.
_COMPACTED_EVENTS = 500

_log = structlog.get_logger(__name__)


class EventLog:
    """Reads what units of work appended. Between `start` and `aclose` it follows the database's commits."""

    def __init__(
        self, database: Database, *, tail_events: int = _TAIL_EVENTS, look_seconds: float = _LOOK_SECONDS
    ) -> None:
        self._database = database
        self._tail_events = tail_events
        self._look_seconds = look_seconds
        self._looking: asyncio.Task[None] | None = None
        self._tails: dict[str, Tail] = {}
        self._lingering: dict[str, asyncio.TimerHandle] = {}
        self._reads = asyncio.Semaphore(_READS)
        self._pages = Pages()
        self._started = False

    async def start(self) -> None:
        """Follows the commits of the database, which must be open."""
        self._database.subscribe(self._committed)
        self._looking = asyncio.create_task(self._look(), name="event-log")
        self._started = True

    async def aclose(self) -> None:
        """Follows them no more. Idempotent."""
        if self._started:
            self._started = False
            self._database.unsubscribe(self._committed)
            for timer in self._lingering.values():
                timer.cancel()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def resume_token(self, app_id: str, sequence: int) -> str:
        """The token from which a watch gets every event after `sequence`."""
        return token.encode(self._database.epoch, app_id, sequence)

    def snapshot_token(self, app_id: str) -> str:
        """The token of who is still owed a snapshot."""
        return token.encode_snapshot(self._database.epoch, app_id)

    async def head(self, connection: AsyncConnection, app_id: str) -> int:
        """The newest sequence, as the connection's transaction sees it. Raises APPLICATION_NOT_FOUND."""
        return (await event_rows.bounds(connection, app_id)).head

    @asynccontextmanager
    async def cursor(
        self,
        app_id: str,
        wanted: EventFilter,
        *,
        place: token.ResumeToken | None = None,
        oldest: bool = False,
    ) -> AsyncIterator[Cursor]:
        """A cursor after a place, before the oldest event, or at the head.

        Raises Refusal APPLICATION_NOT_FOUND, EVENT_HISTORY_COMPACTED, EVENT_HISTORY_LOST.
        """
        tail = self._tails.get(app_id)
        if tail is None:
            tail = self._tails[app_id] = Tail(app_id, self._database.epoch, self._tail_events)
        cursor = Cursor(tail, wanted, self._read)
        tail.attach(cursor)
        if (timer := self._lingering.pop(app_id, None)) is not None:
            timer.cancel()
        try:
            await self._load(tail)
            if place is not None:
                assert not place.is_snapshot
                await self._check(tail, place)
                cursor.position = place.sequence
            else:
                cursor.position = tail.compacted if oldest else tail.head
            yield cursor
        finally:
            tail.detach(cursor)
            if tail.unused:
                # One that could not be loaded is of no application, say.
                seconds = _LINGER_SECONDS if tail.loaded and self._started else 0.0
                loop = asyncio.get_running_loop()
                self._lingering[app_id] = loop.call_later(seconds, self._forget, app_id)

    async def task_ends(self, app_id: str, task_ids: Collection[str]) -> Mapping[str, int | None]:
        """Of each of these tasks that the application has, the place of its last event; None while it goes on."""
        if not task_ids:
            return {}
        return await self._database.read(
            lambda connection: event_rows.task_ends(connection, app_id, task_ids)
        )

    async def compact(self, app_id: str, through: int) -> int:
        """Takes the events up to `through` away, a few at a time; the newest that is gone then."""
        gone = -1
        while True:
            before, gone = (
                gone,
                await self._database.write(
                    lambda uow: event_rows.compact(uow, app_id, through, _COMPACTED_EVENTS),
                    name="events.log.EventLog.compact",
                ),
            )
            if app_id in self._tails:
                self._tails[app_id].drop_through(gone)
            if gone >= through or gone == before:
                return gone

    def _forget(self, app_id: str) -> None:
        del self._lingering[app_id], self._tails[app_id]

    def _committed(self, events: Sequence[event_pb2.Event]) -> None:
        tail = self._tails.get(events[0].app_id)
        if tail is not None:
            tail.extend(events)

    async def _look(self) -> None:
        heads: Mapping[str, int] = {}
        version: int | None = None
        while True:
            await asyncio.sleep(self._look_seconds)
            for app_id, head in heads.items():
                # Told by now, if it is told at all: it was durable at the last look.
                if app_id in self._tails:
                    self._tails[app_id].skip_to(head)
            # Those that linger too: the next page is read from what they have.
            watched = [app_id for app_id, tail in self._tails.items() if tail.loaded]
            before, version = version, self._database.version
            if not watched or (version is not None and version == before):
                heads = {}
                continue
            try:
                heads = await self._database.scan(partial(event_rows.heads, app_ids=watched))
            except Exception:
                heads = {}
                _log.exception("event_log_look_failed")

    async def _load(self, tail: Tail) -> None:
        """Reads the head once, however many watchers come at the same time."""
        async with tail.loading:
            if tail.loaded:
                return
            ends, rows = await self._database.read(lambda connection: self._newest(connection, tail.app_id))
            tail.fill(rows, ends.head, ends.compacted)

    async def _newest(
        self, connection: AsyncConnection, app_id: str
    ) -> tuple[event_rows.Bounds, Sequence[event_rows.LoggedRow]]:
        ends = await event_rows.bounds(connection, app_id)
        count = min(_FIRST_EVENTS, self._tail_events)
        first = max(ends.compacted, ends.head - count)
        return ends, await event_rows.after(connection, app_id, first, count)

    async def _check(self, tail: Tail, place: token.ResumeToken) -> None:
        ends = event_rows.Bounds(tail.head, tail.compacted)
        if place.sequence > ends.head:
            # The token may be of a commit of which this process was not told.
            ends = await self._database.read(lambda connection: event_rows.bounds(connection, tail.app_id))
        if place.epoch != self._database.epoch or place.sequence > ends.head:
            raise self._refusal(
                error_pb2.ERROR_REASON_EVENT_HISTORY_LOST,
                "The resume token is of a log that is gone",
                tail.app_id,
                ends.compacted,
            )
        if place.sequence < ends.compacted:
            raise self._compacted(tail.app_id, place.sequence, ends.compacted)

    async def _read(self, cursor: Cursor, tail: Tail) -> Sequence[LoggedEvent]:
        if cursor.filter.takes_all:
            return await self._read_page(cursor, tail)
        async with self._reads:
            return await self._read_rows(cursor, tail, cursor.position)

    async def _read_page(self, cursor: Cursor, tail: Tail) -> Sequence[LoggedEvent]:
        if cursor.position < tail.compacted:
            raise self._compacted(tail.app_id, cursor.position, tail.compacted)
        page = self._pages.after(tail.app_id, cursor.position)
        if page is None:
            async with tail.paging, self._reads:
                # Somebody may have read it while this one waited for its turn.
                page = self._pages.after(tail.app_id, cursor.position)
                if page is None:
                    place, beginning = cursor.position, self._pages.beginning(cursor.position)
                    page = await self._read_rows(cursor, tail, beginning)
                    self._pages.keep(tail.app_id, beginning, page)
                    return [event for event in page if event.sequence > place]
        cursor.position = page[-1].sequence
        return page

    async def _read_rows(self, cursor: Cursor, tail: Tail, after: int) -> Sequence[LoggedEvent]:
        """A page after a place that is not behind the cursor; moves the cursor to its end."""
        wanted = cursor.filter

        async def read(
            connection: AsyncConnection,
        ) -> tuple[event_rows.Bounds, Sequence[event_rows.LoggedRow]]:
            return await event_rows.bounds(connection, tail.app_id), await event_rows.after(
                connection,
                tail.app_id,
                after,
                PAGE_EVENTS,
                task_ids=wanted.task_ids,
                room_ids=wanted.room_ids,
                types=wanted.types,
                labels=wanted.labels,
            )

        ends, rows = await self._database.scan(read)
        if cursor.position < ends.compacted:
            raise self._compacted(tail.app_id, cursor.position, ends.compacted)
        # Fewer than asked for: what follows them in the snapshot does not match.
        cursor.position = rows[-1].sequence if len(rows) == PAGE_EVENTS else ends.head
        epoch = self._database.epoch
        return [LoggedEvent.stored(row, tail.app_id, epoch) for row in rows]

    def _compacted(self, app_id: str, sequence: int, compacted: int) -> Refusal:
        return self._refusal(
            error_pb2.ERROR_REASON_EVENT_HISTORY_COMPACTED,
            f"The events after {sequence} were compacted",
            app_id,
            compacted,
            sequence=str(sequence),
        )

    def _refusal(
        self,
        reason: error_pb2.ErrorReason.ValueType,
        what: str,
        app_id: str,
        compacted: int,
        **metadata: str,
    ) -> Refusal:
        return Refusal(
            reason,
            f"{what}; the oldest event that is kept is {compacted + 1}, start at oldestResumeToken or read the "
            "state anew.",
            metadata={
                "oldestSequence": str(compacted + 1),
                "oldestResumeToken": self.resume_token(app_id, compacted),
                **metadata,
            },
        )
