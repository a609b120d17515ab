"""One life of a watch stream."""

import asyncio
from collections.abc import Awaitable, Callable

from roomtape.v1 import error_pb2, event_pb2
from roomtape_service.errors import Refusal
from roomtape_service.events.cursor import Cursor
from roomtape_service.rpc.watch_snapshot import Snapshot

__all__ = ["WatchStream"]

# A stall is looked for this many times within its limit, and so noticed by that part late at most.
_STALL_CHECKS = 8
# A server that stops gives up on a message that waits for so long: its watcher has to come again anyway.
_DRAIN_STALL_SECONDS = 2.0


class WatchStream:
    """One watcher's stream: its cursor, its bookmarks, and the watch over messages that do not get through."""

    def __init__(
        self,
        cursor: Cursor,
        write: Callable[[bytes], Awaitable[None]],
        resume_token: Callable[[int], str],
        interval: Callable[[], float],
        stall_seconds: float,
        snapshot: Snapshot | None = None,
        snapshot_token: str = "",
    ) -> None:
        """With a `snapshot` the stream begins with it; `snapshot_token` leads to another one, if it breaks before."""
        self._cursor = cursor
        self._write = write
        self._resume_token = resume_token
        self._interval = interval
        self._interval_seconds = interval()
        self._stall_seconds = stall_seconds
        self._snapshot = snapshot
        self._snapshot_token = snapshot_token
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self._wrote_at = 0.0
        self._writing_since: float | None = None
        self._draining = False
        self._stalled = False

    async def run(self, *, over: bool) -> bool:
        """Sends STARTED, the snapshot if there is one, events and bookmarks.

        True after the last event of the only task, False when drained. `over` says that this event lies before the
        cursor. Raises Refusal STREAM_STALLED.
        """
        cursor, write, now = self._cursor, self._write, self._loop.time
        only_task = cursor.filter.only_task
        self._wrote_at = now()
        self._tick()
        try:
            await self._bookmark(event_pb2.BOOKMARK_REASON_STARTED)
            if self._snapshot is not None and not await self._send_snapshot(self._snapshot):
                return False
            if over:
                return True
            while True:
                events = cursor.take()
                if events is None:
                    events = await cursor.read()
                # Five thousand watchers wait for this loop at once: no call in it that could be left out.
                for event in events:
                    self._writing_since = self._wrote_at = now()
                    await write(event.response)
                    self._writing_since = None
                    if event.ends_task and event.task_id == only_task:
                        return True
                if self._draining:
                    await self._bookmark(event_pb2.BOOKMARK_REASON_DRAINING)
                    return False
                if not events and now() >= self._wrote_at + self._interval_seconds:
                    await self._bookmark(event_pb2.BOOKMARK_REASON_IDLE)
                    self._interval_seconds = self._interval()
                elif cursor.at_head:
                    await cursor.wait()
        except asyncio.CancelledError:
            assert self._task is not None
            if not self._stalled or self._task.uncancel():
                raise
            raise Refusal(
                error_pb2.ERROR_REASON_STREAM_STALLED,
                f"Nothing was read for {self._stall_seconds:g} seconds; resume from the last token.",
                metadata={"seconds": f"{self._stall_seconds:g}"},
            ) from None

    def drain(self) -> None:
        """Ends the stream when what was being sent has been sent, and soon if nothing is read of it."""
        self._draining = True
        self._stall_seconds = min(self._stall_seconds, _DRAIN_STALL_SECONDS)
        self._cursor.interrupt()
        if self._timer is not None and not self._stalled:
            self._timer.cancel()
            self._tick()

    def close(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()

    async def _send_snapshot(self, snapshot: Snapshot) -> bool:
        """False when drained before its end."""
        for message in snapshot.messages:
            if self._draining:
                await self._bookmark(event_pb2.BOOKMARK_REASON_DRAINING)
                return False
            self._writing_since = self._wrote_at = self._loop.time()
            await self._write(message)
            self._writing_since = None
        # From here on there is a place to go on from, and nobody needs the messages.
        self._snapshot = None
        await self._bookmark(event_pb2.BOOKMARK_REASON_SNAPSHOT_END)
        return True

    async def _bookmark(self, reason: event_pb2.BookmarkReason.ValueType) -> None:
        in_snapshot = self._snapshot is not None
        sequence = 0 if in_snapshot else self._cursor.position
        response = event_pb2.WatchEventsResponse(
            resume_token=self._snapshot_token if in_snapshot else self._resume_token(sequence),
            bookmark=event_pb2.Bookmark(reason=reason, sequence=sequence),
        )
        self._writing_since = self._wrote_at = self._loop.time()
        await self._write(response.SerializeToString())
        self._writing_since = None

    def _tick(self) -> None:
        # One timer that is moved seldom costs less than one for each message.
        now = self._loop.time()
        bookmark_due = self._wrote_at + self._interval_seconds
        next_check = now + min(self._stall_seconds / _STALL_CHECKS, self._interval_seconds)
        if self._writing_since is not None:
            if now >= self._writing_since + self._stall_seconds:
                self._stalled = True
                assert self._task is not None
                self._task.cancel()
                return
        elif now >= bookmark_due:
            self._cursor.interrupt()
        else:
            next_check = min(next_check, bookmark_due)
        self._timer = self._loop.call_at(next_check, self._tick)
