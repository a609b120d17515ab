"""A network that loses, repeats and swaps frames: it passes Publish streams on to a server, and keeps its own count."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from grpc import aio

from roomtape.v1 import ingest_pb2, ingest_pb2_grpc

__all__ = ["Troubles", "Wire", "troubled_network"]

_WAITED_NS = 150_000_000
"""A missing frame is waited for at least so long, by the time of capture."""


@dataclass(frozen=True, slots=True)
class Troubles:
    """How often, as a share of the frames. The first and the last frames of a track pass, so that all can be told."""

    lost: float = 0.03
    doubled: float = 0.03
    swapped: float = 0.05
    late: float = 0.01
    reach: int = 3
    """By how many frames of a message one is moved at most."""
    lateness: int = 30
    """After how many frames a late one comes, which is when nobody waits for it any more."""
    spared: int = 40
    """Frames at the end of a track that nothing happens to; `total` says where that is."""


@dataclass
class Wire:
    """What passed of one track, in order, by sequence."""

    passed: list[int] = field(default_factory=list)
    late: set[int] = field(default_factory=set)
    sent: set[int] = field(default_factory=set)

    @property
    def lost(self) -> int:
        """Sequences that were sent and never passed."""
        return len(self.sent - set(self.passed))

    @property
    def doubled(self) -> int:
        """Frames that passed again."""
        return len(self.passed) - len(set(self.passed))

    @property
    def swapped(self) -> int:
        """Frames that passed after one with a higher sequence, and in time."""
        newest, count = 0, 0
        seen: set[int] = set()
        for sequence in self.passed:
            count += sequence < newest and sequence not in seen and sequence not in self.late
            newest = max(newest, sequence)
            seen.add(sequence)
        return count


class _Troubled(ingest_pb2_grpc.IngestServiceServicer):
    def __init__(self, target: str, troubles: Troubles, total: int, seed: int) -> None:
        self.wires: dict[str, Wire] = {}
        self._channel = aio.insecure_channel(target)
        self._stub = ingest_pb2_grpc.IngestServiceStub(self._channel)
        self._troubles = troubles
        self._total = total
        self._seed = seed
        self._dice: dict[str, random.Random] = {}
        self._delayed: dict[str, list[ingest_pb2.Frame]] = {}

    async def aclose(self) -> None:
        await self._channel.close()

    async def Publish(
        self,
        request_iterator: AsyncIterator[ingest_pb2.PublishRequest],
        context: aio.ServicerContext[ingest_pb2.PublishRequest, ingest_pb2.PublishResponse],
    ) -> AsyncIterator[ingest_pb2.PublishResponse]:
        call = self._stub.Publish(self._edited(request_iterator))
        async for response in call:
            yield response

    async def _edited(
        self, requests: AsyncIterator[ingest_pb2.PublishRequest]
    ) -> AsyncIterator[ingest_pb2.PublishRequest]:
        user_id = ""
        async for request in requests:
            if request.WhichOneof("message") == "open":
                user_id = request.open.user_id
                self.wires.setdefault(user_id, Wire())
            elif request.WhichOneof("message") == "frames" and request.frames.frames:
                frames = self._trouble(user_id, list(request.frames.frames))
                del request.frames.frames[:]
                request.frames.frames.extend(frames)
            yield request

    def _trouble(self, user_id: str, frames: list[ingest_pb2.Frame]) -> list[ingest_pb2.Frame]:
        troubles, wire = self._troubles, self.wires[user_id]
        dice = self._dice.setdefault(user_id, random.Random(f"{self._seed} {user_id}"))
        delayed = self._delayed.setdefault(user_id, [])
        passed: list[tuple[float, ingest_pb2.Frame]] = []
        for place, frame in enumerate(frames):
            sequence = frame.sequence
            assert sequence not in wire.sent, "the publisher's stream broke"
            wire.sent.add(sequence)
            while delayed and sequence >= delayed[0].sequence + troubles.lateness:
                passed.append((place, delayed.pop(0)))
            # A frame that is moved passes behind those that it is moved over.
            reach = frames[place + 1 : place + 1 + dice.randint(1, troubles.reach)]
            behind = place + 0.5 + sum(_lag_ns(frame, each) < _WAITED_NS for each in reach)
            match self._fate(sequence, dice):
                case "lost":
                    pass
                case "doubled":
                    passed += [(place, frame), (behind, frame)]
                case "swapped":
                    passed.append((behind, frame))
                case "late":
                    wire.late.add(sequence)
                    delayed.append(frame)
                case _:
                    passed.append((place, frame))
        ordered = [frame for _, frame in sorted(passed, key=lambda each: each[0])]
        wire.passed += [frame.sequence for frame in ordered]
        return ordered

    def _fate(self, sequence: int, dice: random.Random) -> str:
        troubles = self._troubles
        if not 1 < sequence <= self._total - troubles.spared:
            return "passed"
        shares = {
            "lost": troubles.lost,
            "doubled": troubles.doubled,
            "swapped": troubles.swapped,
            "late": troubles.late,
        }
        shares["passed"] = 1 - sum(shares.values())
        return dice.choices(list(shares), list(shares.values()))[0]


def _lag_ns(frame: ingest_pb2.Frame, later: ingest_pb2.Frame) -> int:
    return later.capture_time.ToNanoseconds() - frame.capture_time.ToNanoseconds()


@asynccontextmanager
async def troubled_network(
    target: str, *, total: int, seed: int, troubles: Troubles | None = None
) -> AsyncIterator[tuple[str, dict[str, Wire]]]:
    """Passes Publish streams on to `target`, on which each user publishes `total` frames of one track.

    Gives its own target, and what passed of each user.
    """
    troubled = _Troubled(target, troubles or Troubles(), total, seed)
    server = aio.server()
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(troubled, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", troubled.wires
    finally:
        await server.stop(None)
        await troubled.aclose()
