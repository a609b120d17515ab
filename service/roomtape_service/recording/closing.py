"""Finishing segments beside the worker's loop: hashing a large file takes seconds."""

import queue
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from roomtape_service import failpoints
from roomtape_service.recording.protocol import SegmentCompleted
from roomtape_service.recording.segment import WrittenSegment
from roomtape_service.spool.finishing import finish_segment

__all__ = ["ClosedSegment", "Closer", "ClosingQueue", "FailedClosing"]


@dataclass(frozen=True, slots=True)
class ClosedSegment:
    """A finished segment; its journal says so."""

    completed: SegmentCompleted


@dataclass(frozen=True, slots=True)
class FailedClosing:
    """The spool did not let a segment be finished; it should be tried again."""

    segment: WrittenSegment
    error: OSError | ValueError


class ClosingQueue:
    """The segments of one recording that are to be finished, in their order."""

    def __init__(self, closer: "Closer", tell: Callable[[SegmentCompleted], None]) -> None:
        self._closer = closer
        self._tell = tell
        self._waiting: deque[WrittenSegment] = deque()
        self._failure: FailedClosing | None = None

    @property
    def is_empty(self) -> bool:
        """Whether all are finished, and told."""
        return not self._waiting

    @property
    def has_failed(self) -> bool:
        """Whether the next could not be finished when it was last tried."""
        return self._failure is not None

    def add(self, segment: WrittenSegment) -> None:
        """One more is written."""
        self._waiting.append(segment)
        if len(self._waiting) == 1:
            self._closer.close_segment(self, segment)

    def take(self, result: ClosedSegment | FailedClosing) -> None:
        """What became of the first."""
        if isinstance(result, FailedClosing):
            self._failure = result
            return
        self._waiting.popleft()
        self._tell(result.completed)
        if self._waiting:
            self._closer.close_segment(self, self._waiting[0])

    def retry(self) -> FailedClosing | None:
        """Tries again what failed; returns what it was."""
        failure, self._failure = self._failure, None
        if failure is not None:
            self._closer.close_segment(self, failure.segment)
        return failure


class Closer:
    """Finishes segments in a thread of its own, one after the other.

    `wake` is called from that thread when `take_results` has something.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="closing")
        self._results: queue.SimpleQueue[tuple[ClosingQueue, ClosedSegment | FailedClosing]] = (
            queue.SimpleQueue()
        )

    def close_segment(self, owner: ClosingQueue, segment: WrittenSegment) -> None:
        """Finishes a segment; the result comes with its `owner`."""
        self._thread.submit(self._work, owner, segment)

    def take_results(self) -> list[tuple[ClosingQueue, ClosedSegment | FailedClosing]]:
        """What was finished since the last call."""
        results: list[tuple[ClosingQueue, ClosedSegment | FailedClosing]] = []
        while True:
            try:
                results.append(self._results.get_nowait())
            except queue.Empty:
                return results

    @property
    def has_results(self) -> bool:
        """Whether `take_results` has something."""
        return not self._results.empty()

    def close(self) -> None:
        """Waits for what was begun. Idempotent."""
        self._thread.shutdown(wait=True)

    def _work(self, owner: ClosingQueue, segment: WrittenSegment) -> None:
        try:
            failpoints.hit("segment.finish")
            completed = finish_segment(
                segment.folder,
                segment.header,
                segment.last,
                segment.resume,
                interrupted=segment.interrupted,
                trouble=segment.trouble,
            )
            failpoints.hit("segment.close")
            segment.journal.append(completed)
            segment.journal.close()
        except (OSError, ValueError) as error:
            self._results.put((owner, FailedClosing(segment, error)))
        else:
            self._results.put((owner, ClosedSegment(completed)))
        self._wake()
