"""What a node does about a worker that dies: recovers its spool, starts another, and sends again what is not safe."""

import asyncio
from dataclasses import dataclass, field, replace

from roomtape.v1 import ingest_pb2
from roomtape_service.recording import protocol
from roomtape_service.spool.recovery import RecoveredSegment, recover
from tests.support.recorder import Publisher, RecorderNode

__all__ = ["Held", "ResumingNode"]


@dataclass
class Held:
    """A publisher, and its batches that are not safe yet."""

    publisher: Publisher
    batches: list[tuple[int, bytes]] = field(default_factory=list)


class ResumingNode:
    """Sends through a `RecorderNode`; after `take_over` everything goes on where it was safe."""

    def __init__(
        self, node: RecorderNode, room: protocol.RoomOpen, orders: list[protocol.RecordingStart]
    ) -> None:
        self.segments: dict[tuple[str, int], protocol.SegmentCompleted] = {}
        self._node = node
        self._room = room
        self._orders = {order.recording_id: order for order in orders}
        self._tracks: dict[int, Held] = {}
        self._taken: dict[str, tuple[int, ...]] = {}
        node.on_said = self._hear

    def open(self, publishers: list[Publisher], taken: dict[str, tuple[int, ...]]) -> None:
        """Starts all recordings, each with its tracks."""
        self._tracks = {publisher.handle: Held(publisher) for publisher in publishers}
        self._taken = taken
        self._tell_all()

    def send(self, publisher: Publisher, batch: ingest_pb2.FrameBatch) -> None:
        """Sends a batch, and holds it until it is safe."""
        message = publisher.message(batch)
        newest = max((frame.sequence for frame in batch.frames), default=0)
        if newest:
            self._tracks[publisher.handle].batches.append((newest, message))
        self._node.write(message)

    async def take_over(self) -> list[RecoveredSegment]:
        """The worker is dead: recovers, and goes on with the next."""
        recovered = (await asyncio.to_thread(recover, self._node.spool)).segments
        for segment in recovered:
            self._keep(segment.completed())
        for recording_id, order in self._orders.items():
            segments = [each for each in self.segments.values() if each.recording_id == recording_id]
            if not segments:
                continue
            last = max(segments, key=lambda each: each.segment)
            self._orders[recording_id] = replace(
                order,
                next_segment=last.segment + 1,
                resume=last.resume,
                position_ns=last.end_ns if order.kind is protocol.RecordingKind.MIXED else None,
            )
        self._node.safe.clear()
        await self._node.start_worker()
        self._tell_all()
        return recovered

    def of(self, recording_id: str) -> list[protocol.SegmentCompleted]:
        """A recording's segments in order."""
        return [self.segments[key] for key in sorted(self.segments) if key[0] == recording_id]

    @property
    def is_safe(self) -> bool:
        """Whether everything that was sent is safe."""
        return not any(held.batches for held in self._tracks.values())

    def _tell_all(self) -> None:
        node = self._node
        node.tell(self._room, *(held.publisher.open() for held in self._tracks.values()))
        for recording_id, order in self._orders.items():
            node.tell(order, protocol.RecordingTracks(recording_id, self._taken[recording_id]))
        for held in self._tracks.values():
            for _, message in held.batches:
                node.write(message)

    def _hear(self, op: protocol.WorkerOp) -> None:
        if isinstance(op, protocol.SegmentCompleted):
            self._keep(op)
        elif isinstance(op, protocol.Safe):
            for handle, sequence in op.tracks.items():
                held = self._tracks[handle]
                held.batches = [each for each in held.batches if each[0] > sequence]

    def _keep(self, completed: protocol.SegmentCompleted) -> None:
        known = self.segments.setdefault((completed.recording_id, completed.segment), completed)
        assert known == completed
