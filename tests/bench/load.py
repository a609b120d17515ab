"""A process of many publishers, in real time: `python -m tests.bench.load`, driven over stdin and stdout.

1. It reads a `LoadOrder` as one line of JSON, opens every stream, and prints `{"opened": n}`.
2. It reads `go`, serializes every batch that it will send, and prints when the first frame is captured.
3. It sends each batch at its own absolute time, publishers spread over the length of a batch.
4. It reads `stop`, closes every stream, waits for the goodbyes, and prints a `LoadReport`.

Nothing is parsed or serialized while it sends, so it takes little of the machine that is measured.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import uvloop
from grpc import aio

from roomtape.v1 import ingest_pb2, media_pb2
from tests.bench.material import CLIP_SECONDS, FRAME_SECONDS, Clip

__all__ = ["BATCH_SECONDS", "LoadOrder", "LoadReport", "Publisher"]

BATCH_SECONDS = 0.1

_METHOD = "/roomtape.v1.IngestService/Publish"
_TRACK = "audio"
_NANOSECONDS = 1_000_000_000
_FRAME_NS = round(FRAME_SECONDS * _NANOSECONDS)
_BATCH_NS = round(BATCH_SECONDS * _NANOSECONDS)
_CLIP_FRAMES = round(CLIP_SECONDS / FRAME_SECONDS)
# Serializing one batch takes about 15 µs; what is over is slept away.
_PREPARE_NS_PER_BATCH = 60_000
_PREPARE_NS = 500_000_000
_GOODBYE_SECONDS = 20.0
# A server that takes thousands of connections at once is not what is measured.
_OPENING_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Publisher:
    """One user of a room, who publishes the packets of a clip over and over."""

    room_id: str
    user_id: str
    clip: str


@dataclass(frozen=True, slots=True)
class LoadOrder:
    """What a process publishes, at most for `seconds`; each publisher has a connection of its own."""

    target: str
    app_id: str
    seconds: float
    publishers: Sequence[Publisher]


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What came of it: batches sent, how late the latest of them left, streams that ended with all safe."""

    batches: int
    latest_ms: float
    goodbyes: int


class _Stream:
    def __init__(self, order: LoadOrder, publisher: Publisher, phase_ns: int) -> None:
        self._order = order
        self._publisher = publisher
        self._phase_ns = phase_ns
        options = (("grpc.use_local_subchannel_pool", 1),)
        self._channel = aio.insecure_channel(order.target, options=options)
        self._call: aio.StreamStreamCall[bytes, bytes] = self._channel.stream_stream(_METHOD)()
        self._batches: list[tuple[int, bytes]] = []
        self._stopped = asyncio.Event()
        self._answers: asyncio.Task[bytes] | None = None
        self.sent = 0
        self.latest_ns = 0

    async def open(self) -> None:
        request = ingest_pb2.PublishRequest(
            open=ingest_pb2.PublishOpen(
                app_id=self._order.app_id,
                room_id=self._publisher.room_id,
                user_id=self._publisher.user_id,
                publish_session_id=f"{self._publisher.room_id}-{self._publisher.user_id}",
                tracks=[ingest_pb2.TrackOffer(track_id=_TRACK, codec=media_pb2.CODEC_OPUS)],
            )
        )
        await self._call.write(request.SerializeToString())
        answer = await self._call.read()
        assert isinstance(answer, bytes), f"Publish ended: {await self._call.details()}"
        assert ingest_pb2.PublishResponse.FromString(answer).HasField("opened")
        self._answers = asyncio.create_task(self._read())

    def prepare(self, start_ns: int, wall_offset_ns: int, packets: Sequence[tuple[int, bytes]]) -> None:
        """Serializes all that will be sent. Times are monotonic; the offset makes them UTC."""
        start_ns += self._phase_ns
        end = round(self._order.seconds / FRAME_SECONDS)
        waiting: list[ingest_pb2.Frame] = []
        due_ns = start_ns + _BATCH_NS
        for sequence, (number, payload) in enumerate(_repeated(packets, end), start=1):
            media_ns = number * _FRAME_NS
            while start_ns + media_ns >= due_ns:
                self._add(waiting, due_ns, wall_offset_ns)
                waiting, due_ns = [], due_ns + _BATCH_NS
            frame = ingest_pb2.Frame(sequence=sequence, payload=payload)
            frame.media_time.FromNanoseconds(media_ns)
            frame.capture_time.FromNanoseconds(start_ns + media_ns + wall_offset_ns)
            waiting.append(frame)

    def _add(self, frames: Sequence[ingest_pb2.Frame], due_ns: int, wall_offset_ns: int) -> None:
        if frames:
            batch = ingest_pb2.FrameBatch(track_id=_TRACK, frames=frames)
            batch.sent_time.FromNanoseconds(due_ns + wall_offset_ns)
            self._batches.append((due_ns, ingest_pb2.PublishRequest(frames=batch).SerializeToString()))

    async def run(self) -> None:
        """Sends until it is stopped."""
        for due_ns, batch in self._batches:
            delay_ns = due_ns - time.monotonic_ns()
            if delay_ns > 0:
                await asyncio.sleep(delay_ns / _NANOSECONDS)
            if self._stopped.is_set():
                break
            self.latest_ns = max(self.latest_ns, time.monotonic_ns() - due_ns)
            await self._call.write(batch)
            self.sent += 1

    def stop(self) -> None:
        self._stopped.set()

    async def close(self) -> bool:
        """Leaves the room; returns whether the server said that all is safe."""
        assert self._answers is not None
        close = ingest_pb2.PublishRequest(close=ingest_pb2.PublishClose())
        try:
            await self._call.write(close.SerializeToString())
            last = await asyncio.wait_for(self._answers, _GOODBYE_SECONDS)
        except (TimeoutError, aio.AioRpcError):
            return False
        finally:
            await self._channel.close()
        goodbye = ingest_pb2.PublishResponse.FromString(last).goodbye
        return goodbye.reason == ingest_pb2.GOODBYE_REASON_CLOSED

    async def _read(self) -> bytes:
        last = b""
        while isinstance(answer := await self._call.read(), bytes):
            last = answer
        return last


def _repeated(packets: Sequence[tuple[int, bytes]], end: int) -> Iterator[tuple[int, bytes]]:
    for first in range(0, end, _CLIP_FRAMES):
        for number, payload in packets:
            if number < _CLIP_FRAMES and first + number < end:
                yield first + number, payload


async def _run() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    given = json.loads(await lines.readline())
    order = LoadOrder(**{**given, "publishers": [Publisher(**each) for each in given["publishers"]]})
    count = len(order.publishers)
    streams = [
        _Stream(order, publisher, index * _BATCH_NS // count)
        for index, publisher in enumerate(order.publishers)
    ]
    for first in range(0, count, _OPENING_AT_ONCE):
        await asyncio.gather(*(stream.open() for stream in streams[first : first + _OPENING_AT_ONCE]))
    _say({"opened": count})
    await lines.readline()
    batches = count * order.seconds / BATCH_SECONDS
    start_ns = time.monotonic_ns() + _PREPARE_NS + round(batches * _PREPARE_NS_PER_BATCH)
    wall_offset_ns = time.time_ns() - time.monotonic_ns()
    packets = {path: Clip(Path(path)).packets() for path in {each.clip for each in order.publishers}}
    for stream, publisher in zip(streams, order.publishers, strict=True):
        stream.prepare(start_ns, wall_offset_ns, packets[publisher.clip])
    assert time.monotonic_ns() < start_ns, "the batches were not ready in time"
    _say({"start_ns": start_ns})
    sending = [asyncio.create_task(stream.run()) for stream in streams]
    await lines.readline()
    for stream in streams:
        stream.stop()
    await asyncio.gather(*sending)
    goodbyes = await asyncio.gather(*(stream.close() for stream in streams))
    latest_ms = max(stream.latest_ns for stream in streams) / 1e6
    _say(asdict(LoadReport(sum(stream.sent for stream in streams), latest_ms, sum(goodbyes))))


def _say(facts: dict[str, object]) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    uvloop.run(_run())
