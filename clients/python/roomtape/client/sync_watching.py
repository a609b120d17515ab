"""Watching events with threads."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

import grpc

from roomtape.client.backoff import RESUMABLE, Backoff
from roomtape.client.cursor import WatchCursor, WatchStatistics
from roomtape.client.errors import ClientClosed, DeadlineExceeded, RoomtapeError, from_rpc_error
from roomtape.client.snapshot import Snapshot
from roomtape.v1 import event_pb2

__all__ = ["OpenSyncWatch", "SyncWatch"]

_LOG = logging.getLogger("roomtape.client")


class _Stream(Protocol):
    def __next__(self) -> event_pb2.WatchEventsResponse: ...

    def cancel(self) -> object: ...


OpenSyncWatch = Callable[[event_pb2.WatchEventsRequest], _Stream]


class SyncWatch(Iterator[event_pb2.Event]):
    """The events of an application, one by one and each once; like `Watch`, but for threads.

    One thread iterates; `close` may be called from any other and ends the iteration.
    """

    def __init__(
        self,
        open_watch: OpenSyncWatch,
        cursor: WatchCursor,
        backoff: Backoff,
        outage_seconds: float | None = None,
    ) -> None:
        self._open_watch = open_watch
        self._cursor = cursor
        self._backoff = backoff
        self._outage_seconds = outage_seconds
        self._outage_end: float | None = None
        self._call: _Stream | None = None
        self._ahead: event_pb2.Event | None = None
        self._registered = False
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._watchdog = _Watchdog()

    @property
    def resume_token(self) -> str | None:
        """From here a later watch goes on after everything that was handed out; None before the first message."""
        return self._cursor.resume_token

    def statistics(self) -> WatchStatistics:
        """The counts so far."""
        return self._cursor.statistics()

    def start(self) -> None:
        """Returns when the server has registered the watch: what happens from now on will come.

        Without it, the first step of the iteration does that too. Raises as the iteration does.
        """
        while not self._registered and not self._closed.is_set():
            self._ahead = self._step()

    def snapshot(self) -> Snapshot | None:
        """The state with which a watch from a SNAPSHOT begins, once all of it has come; the iteration follows it.

        Also where the watch goes on after a token that was kept before a snapshot was whole. None for any other watch;
        for one after a token only when something has happened, or nothing for an interval. Raises as iterating does.
        """
        while self._ahead is None and self._cursor.may_have_snapshot and not self._closed.is_set():
            self._ahead = self._step()
        return self._cursor.snapshot

    def __next__(self) -> event_pb2.Event:
        event, self._ahead = self._ahead, None
        while event is None and not self._closed.is_set():
            event = self._step()
        if event is None:
            raise StopIteration
        return event

    def close(self) -> None:
        """Ends the stream; the iteration is over."""
        with self._lock:
            self._closed.set()
        self._drop()
        self._watchdog.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _step(self) -> event_pb2.Event | None:
        try:
            response = self._read()
        except RoomtapeError as error:
            self._recover(error)
            return None
        self._backoff.reset()
        self._outage_end = None
        self._registered = True
        if response is None:
            self.close()
            return None
        return self._cursor.accept(response)

    def _read(self) -> event_pb2.WatchEventsResponse | None:
        with self._lock:
            if self._closed.is_set():
                return None
            call = self._call = self._call or self._open()
        self._watchdog.guard(call.cancel, self._cursor.silence_seconds)
        try:
            return next(call)
        except StopIteration:
            return None
        except grpc.RpcError as cause:
            if self._watchdog.bit:
                text = f"nothing was heard for {self._cursor.silence_seconds:g} s"
                raise DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, text) from cause
            raise from_rpc_error(cause) from cause
        finally:
            self._watchdog.rest()

    def _open(self) -> _Stream:
        try:
            return self._open_watch(self._cursor.request())
        except ValueError:
            # This is how a channel that was closed says so.
            raise ClientClosed from None

    def _recover(self, error: RoomtapeError) -> None:
        self._drop()
        if self._closed.is_set():
            return
        now = time.monotonic()
        if self._outage_end is None and self._outage_seconds is not None:
            self._outage_end = now + self._outage_seconds
        seconds = self._backoff.next_seconds(error.retry_after)
        too_late = self._outage_end is not None and now + seconds > self._outage_end
        if isinstance(error, ClientClosed) or error.code not in RESUMABLE or too_late:
            self.close()
            raise error
        _LOG.info("watch_interrupted error=%s retry_seconds=%.3f", error, seconds)
        self._closed.wait(seconds)

    def _drop(self) -> None:
        with self._lock:
            call, self._call = self._call, None
        if call is not None:
            call.cancel()


class _Watchdog:
    """Calls a function when a guarded step takes too long; one thread, from the first step to `close`."""

    def __init__(self) -> None:
        self.bit = False
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._bite: Callable[[], object] | None = None
        self._deadline: float | None = None
        self._idle = False
        self._closed = False

    def guard(self, bite: Callable[[], object], seconds: float) -> None:
        """Begins a step that may take `seconds`."""
        with self._condition:
            self.bit = False
            self._bite = bite
            self._deadline = time.monotonic() + seconds
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="roomtape-watchdog", daemon=True)
                self._thread.start()
            elif self._idle:
                # Otherwise it wakes at an older deadline, looks, and sleeps on: no waking for every message.
                self._condition.notify()

    def rest(self) -> None:
        """The step is over."""
        with self._condition:
            self._deadline = None

    def close(self) -> None:
        """Ends the thread and waits for it."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        with self._condition:
            while not self._closed:
                left = None if self._deadline is None else self._deadline - time.monotonic()
                if left is not None and left <= 0 and self._bite is not None:
                    self.bit, self._deadline = True, None
                    self._bite()
                else:
                    self._idle = left is None
                    self._condition.wait(left)
