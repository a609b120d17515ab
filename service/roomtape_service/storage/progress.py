"""How far the uploads of large files are, told now and then."""

from roomtape.v1 import event_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.database.segments import SegmentRow
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.storage.notices import upload_event
from roomtape_service.storage.part import Part

__all__ = ["INTERVAL_NS", "LARGE_BYTES", "UploadProgress"]

LARGE_BYTES = 64 << 20
"""Smaller files are in their store before anybody asks."""
INTERVAL_NS = 10 * NANOSECONDS
"""Of each file's events; often enough for a bar that moves."""


class UploadProgress:
    """Of one file's upload. Nothing is told of one that takes less than the interval."""

    def __init__(self, row: SegmentRow) -> None:
        self._row = row
        self._sent: dict[int, int] = {}
        self._told_ns: int | None = None

    def known(self, part: Part) -> None:
        """The store had it before."""
        self._sent[part.number] = part.length

    async def sent(self, unit: UnitOfWork, part: Part) -> None:
        """The store has confirmed a part. The first thing in the unit that keeps its tag."""
        self.known(part)
        sent_bytes, size_bytes = sum(self._sent.values()), self._row.size_bytes
        if self._told_ns is None:
            self._told_ns = unit.now_ns
        # The end is told by another event.
        if size_bytes < LARGE_BYTES or sent_bytes >= size_bytes or unit.now_ns < self._told_ns + INTERVAL_NS:
            return
        # Also if the unit fails: it is worth no second try.
        self._told_ns = unit.now_ns
        event = await upload_event(unit, event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_PROGRESS, self._row)
        event.segment.sent_bytes = sent_bytes
        await unit.append(event)
