"""The workers of a node: who has which room, and what happens when one is lost."""

import asyncio
import fcntl
import os
import signal
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError

from roomtape_service import failpoints
from roomtape_service.recording import protocol
from roomtape_service.recording.front.departed import departed_track, keep_departed, load_departed
from roomtape_service.recording.front.feed import FeedFacts, RoomFeed, TrackIndex
from roomtape_service.recording.front.link import WorkerLink
from roomtape_service.recording.front.losses import WorkerLoss
from roomtape_service.recording.front.track import FeedTrack
from roomtape_service.spool.records import SpoolRecords
from roomtape_service.spool.recovery import Recovery, recordings_on_spool, recover

__all__ = ["WorkerPool"]

_EXIT_SECONDS = 5.0
"""A worker whose connection ended exits at once; one that has not after this long hangs, and is killed."""

_RETRY_FAILED_SECONDS = 1.0
"""How often a recording is tried again whose files could not be written."""

_RETRY_RECOVERY_SECONDS = 1.0
"""How often the spool of a lost worker is tried again that could not be read or written."""

_SOCKET_BACKLOG = 64
_WORKER = b"roomtape_service.recording.worker"
"""In the command line of every worker."""

log = structlog.get_logger(__name__)


class WorkerPool:
    """Accepts workers, gives rooms to them, and gives the rooms of a lost one to another.

    `on_fact` gets what a worker reports about a recording, and `on_loss` what was found on the spool of a lost one,
    both in the order in which they happened to a recording, in the event loop. `known` says what the database has of
    recordings.
    """

    def __init__(
        self,
        socket_path: Path,
        spool_root: Path,
        on_fact: Callable[[protocol.WorkerOp], None],
        on_loss: Callable[[WorkerLoss], None],
        known: Callable[[Collection[str]], Awaitable[SpoolRecords]],
        *,
        waits_for_disk: bool = False,
        on_full: Callable[[], None] = lambda: None,
    ) -> None:
        """`waits_for_disk`: what is kept of those who leave is on the disk, and not only the kernel's.

        `on_full` is called when a worker found the spool's disk full.
        """
        self._on_full = on_full
        self._is_paused = False
        self._socket_path = socket_path
        self._spool_root = spool_root
        self._waits_for_disk = waits_for_disk
        self._on_fact = on_fact
        self._on_loss = on_loss
        self._known = known
        self._links: list[WorkerLink] = []
        self._feeds: dict[str, RoomFeed] = {}
        self._by_recording: dict[str, RoomFeed] = {}
        self._tracks: TrackIndex = {}
        self._closed: set[str] = set()
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._recovering = asyncio.Lock()
        self._unrecovered: set[str] = set()
        """Rooms of lost workers whose spools were not looked at yet: nobody knows where they go on."""
        self._stopping = False
        self._has_worker = asyncio.Event()

    @property
    def worker_count(self) -> int:
        """How many workers are connected."""
        return len(self._links)

    async def recover_spool(self) -> Recovery:
        """Finishes what lost workers left on the spool, and tells of all that is there; tries until it can.

        A worker of the node before that still has not exited hangs, and is killed.
        """
        recovery = await self._recover_surely(None, _EXIT_SECONDS)
        if recovery.living:
            for folder in recovery.living:
                _kill_worker_of(folder)
            late = await self._recover_surely(recovery.living, _EXIT_SECONDS)
            recovery.segments += late.segments
            recovery.damages += late.damages
            recovery.living = late.living
        return recovery

    async def start(self) -> None:
        """Listens for workers."""
        self._socket_path.parent.mkdir(parents=True, exist_ok=True)
        self._socket_path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(
            self._accept, self._socket_path, backlog=_SOCKET_BACKLOG
        )
        self._socket_path.chmod(0o600)

    async def wait_for_worker(self, timeout_seconds: float) -> bool:
        """Whether a worker is there, or comes within the time. None comes after `shutdown`, which ends the waiting."""
        if not self._stopping:
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._has_worker.wait()
            except TimeoutError:
                pass
        return bool(self._links)

    def feed(self, facts: FeedFacts) -> RoomFeed:
        """The feed of a room, made at its first use."""
        feed = self._feeds.get(facts.room_key)
        if feed is None:
            feed = self._feeds[facts.room_key] = RoomFeed(facts, self._tracks)
        return feed

    def find(self, room_key: str) -> RoomFeed | None:
        """The feed of a room that has one."""
        return self._feeds.get(room_key)

    async def keep_departing(self, feed: RoomFeed, tracks: Iterable[FeedTrack], at_ns: int) -> None:
        """Keeps on disk what is held of tracks that are about to be closed at `at_ns`, until it is recorded.

        Raises OSError.
        """
        for track in tracks:
            if track.held:
                departing = departed_track(feed.facts.room_key, track, at_ns)
                track.kept = await asyncio.to_thread(
                    keep_departed, self._spool_root, departing, waits_for_disk=self._waits_for_disk
                )
                feed.forget_kept(track, departing)

    async def take_up_departed(self, *, is_whole: bool) -> None:
        """Goes on with those who had left the rooms that were taken up; before there are workers.

        Unless all rooms and recordings were (`is_whole`), what nobody lacks now may be lacked at the next start.
        """
        for path, departed in await asyncio.to_thread(load_departed, self._spool_root):
            feed = self._feeds.get(departed.room_key)
            is_taken = feed is not None and feed.take_up(departed, path)
            if not is_taken and is_whole:
                with suppress(OSError):
                    failpoints.hit("departed.forget")
                    path.unlink()

    def register(self, feed: RoomFeed, recording_id: str) -> None:
        """A recording of the feed is about to start: its room needs a worker."""
        self._by_recording[recording_id] = feed
        if feed.worker is None:
            self._assign(feed)

    def close_room(self, room_key: str) -> None:
        """The room is closed; its feed goes when nothing of it is recorded any more."""
        feed = self._feeds.get(room_key)
        if feed is not None:
            self._closed.add(room_key)
            self._drop_if_done(feed)

    def pause(self) -> None:
        """The spool is full: all segments end, and nothing is recorded and acknowledged before `go_on`. Idempotent."""
        self._is_paused = True
        for feed in self._feeds.values():
            feed.restart(protocol.SpoolTrouble.FULL)

    def go_on(self) -> None:
        """There is room on the spool again. Idempotent."""
        self._is_paused = False
        for feed in self._feeds.values():
            if feed.recordings and feed.worker is None:
                self._assign(feed)
            self._resume(feed)

    async def shutdown(self, timeout_seconds: float) -> None:
        """Lets every worker close its segments, and waits for what they say last."""
        self._stopping = True
        self._has_worker.set()
        links = list(self._links)
        for link in links:
            link.send(protocol.encode(protocol.Shutdown()))
        try:
            async with asyncio.timeout(timeout_seconds):
                for link in links:
                    await link.said_bye.wait()
        except TimeoutError:
            log.warning("workers_slow_to_stop", seconds=timeout_seconds)

    async def aclose(self) -> None:
        """Stops listening and ends all connections. Idempotent."""
        self._stopping = True
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        self._socket_path.unlink(missing_ok=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._stopping:
            writer.close()
            return
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        hello = None
        try:
            hello = await _hello(reader)
        finally:
            if hello is None:
                writer.close()
        if hello is None:
            return
        link = WorkerLink(reader, writer, hello, self._receive)
        log.info("worker_connected", worker=hello.index, generation=hello.generation, pid=hello.pid)
        self._links.append(link)
        self._has_worker.set()
        for feed in self._feeds.values():
            if feed.recordings and feed.worker is None:
                self._assign(feed)
        try:
            await link.run()
        except Exception:
            # Whatever it was, its rooms must not stay with a worker whom nobody hears any more.
            log.exception("worker_not_understood", worker=hello.index, generation=hello.generation)
        finally:
            self._links.remove(link)
            if not self._links:
                self._has_worker.clear()
        if not self._stopping:
            await self._take_over(link)

    async def _take_over(self, link: WorkerLink) -> None:
        log.warning("worker_lost", worker=link.hello.index, generation=link.hello.generation)
        feeds = [self._feeds[key] for key in link.rooms if key in self._feeds]
        for feed in feeds:
            feed.detach()
            self._unrecovered.add(feed.facts.room_key)
        await self._wait_for_exit(link.hello)
        folder = Path(link.hello.spool)
        recovery = await self._recover_surely([folder])
        for segment in recovery.segments:
            feed_of = self._by_recording.get(segment.recording_id)
            recording = feed_of.recordings.get(segment.recording_id) if feed_of else None
            if recording is not None:
                recording.continue_after(segment.segment, segment.end_ns, segment.resume)
        recordings = [recording_id for feed in feeds for recording_id in feed.recordings]
        self._on_loss(WorkerLoss(folder, recordings, recovery))
        for feed in feeds:
            self._unrecovered.discard(feed.facts.room_key)
            if feed.worker is None and feed.recordings:
                self._assign(feed)

    async def _recover_surely(self, only: Collection[Path] | None, wait_seconds: float = 0.0) -> Recovery:
        while True:
            try:
                async with self._recovering:
                    on_spool = await asyncio.to_thread(recordings_on_spool, self._spool_root, only)
                    records = await self._known(on_spool)
                    return await asyncio.to_thread(
                        recover, self._spool_root, only=only, records=records, wait_seconds=wait_seconds
                    )
            except (OSError, SQLAlchemyError) as error:
                log.error("spool_not_recovered", error=str(error))
                await asyncio.sleep(_RETRY_RECOVERY_SECONDS)

    async def _wait_for_exit(self, hello: protocol.Hello) -> None:
        lock = Path(hello.spool) / "lock"
        waiting = asyncio.create_task(asyncio.to_thread(_wait_for_lock, lock))
        done, _ = await asyncio.wait([waiting], timeout=_EXIT_SECONDS)
        if not done:
            log.error("worker_hangs", worker=hello.index, pid=hello.pid)
            os.kill(hello.pid, signal.SIGKILL)
        await waiting

    def _assign(self, feed: RoomFeed) -> None:
        if self._stopping or self._is_paused or not self._links or feed.facts.room_key in self._unrecovered:
            return
        link = min(self._links, key=lambda each: len(each.rooms))
        link.rooms.add(feed.facts.room_key)
        feed.attach(link)

    def _drop_if_done(self, feed: RoomFeed) -> None:
        if feed.recordings or feed.facts.room_key not in self._closed:
            return
        self._closed.discard(feed.facts.room_key)
        feed.close()
        self._feeds.pop(feed.facts.room_key, None)
        for link in self._links:
            link.rooms.discard(feed.facts.room_key)

    def _receive(self, op: protocol.WorkerOp) -> None:
        match op:
            case protocol.Safe():
                for handle, sequence in op.tracks.items():
                    if handle in self._tracks:
                        feed, track = self._tracks[handle]
                        feed.safe(track, sequence)
            case protocol.Rejected():
                if op.track in self._tracks:
                    _, track = self._tracks[op.track]
                    if track.on_rejected is not None:
                        track.on_rejected(op)
            case protocol.Hello() | protocol.Bye():
                pass
            case _:
                if self._note(op):
                    self._on_fact(op)

    def _note(self, op: protocol.WorkerOp) -> bool:
        """Keeps the feed up with what the worker says of a recording; whether anybody else needs to know it."""
        recording_id = getattr(op, "recording_id", None)
        feed = self._by_recording.get(recording_id) if isinstance(recording_id, str) else None
        recording = feed.recordings.get(recording_id) if feed and isinstance(recording_id, str) else None
        if feed is None or recording is None or not isinstance(recording_id, str):
            return True
        match op:
            case protocol.SegmentStarted():
                recording.next_segment = max(recording.next_segment, op.segment + 1)
                recording.has_failed = False
            case protocol.SegmentCompleted():
                recording.continue_after(op.segment, op.end_ns, op.resume)
                feed.rest_if_idle(recording)
            case protocol.RecordingStopped():
                if feed.recording_stopped(recording_id):
                    self._resume_later(feed)
                if recording_id in feed.recordings:
                    return False
                self._by_recording.pop(recording_id, None)
                self._drop_if_done(feed)
            case protocol.RecordingFailed():
                if op.reason == protocol.SpoolTrouble.FULL:
                    self._on_full()
                feed.recording_failed(recording_id)
                if feed.restart():
                    self._resume_later(feed)
            case _:
                pass
        return True

    def _resume_later(self, feed: RoomFeed) -> None:
        asyncio.get_running_loop().call_later(_RETRY_FAILED_SECONDS, self._resume, feed)

    def _resume(self, feed: RoomFeed) -> None:
        if not self._stopping and not self._is_paused:
            feed.resume_parked()


async def _hello(reader: asyncio.StreamReader) -> protocol.Hello | None:
    """The first message of a connection; None if it broke before, or begins with another."""
    try:
        op = await protocol.read_worker_op(reader)
    except (ConnectionError, asyncio.IncompleteReadError, protocol.ProtocolError) as error:
        log.warning("worker_hello_broken", error=str(error))
        return None
    if isinstance(op, protocol.Hello):
        return op
    log.warning("worker_without_hello", message=type(op).__name__ if op is not None else "")
    return None


def _kill_worker_of(folder: Path) -> None:
    """Kills the worker that a folder is named after, if there is one of that id."""
    pid = folder.name.rpartition("-")[2]
    try:
        command = Path("/proc", pid, "cmdline").read_bytes()
        if pid.isdecimal() and _WORKER in command:
            log.error("worker_hangs", folder=folder.name, pid=int(pid))
            os.kill(int(pid), signal.SIGKILL)
    except OSError as error:
        log.warning("worker_not_found", folder=folder.name, error=str(error))


def _wait_for_lock(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)
