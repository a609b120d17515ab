"""A process of many publishers, in real time: `python -m tests.bench.load`, driven over stdin and stdout.

1. It reads a `LoadOrder` as one line of JSON, opens every stream, and prints `{"opened": n}`.
2. It reads `go`, and prints when the first frame is captured.
3. It sends each batch at its own absolute time, publishers spread over the length of a batch.
4. It reads `stop`, closes every stream, waits for the goodbyes, and prints a `LoadReport`.
"""

import asyncio
import itertools
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
# Until then every stream waits for its first batch.
_START_NS = 500_000_000
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
    """What a process publishes, over one connection a room, as the media server of a room would."""

    target: str
    app_id: str
    publishers: Sequence[Publisher]


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What came of it: batches sent, how late the latest of them left, streams that ended with all safe."""

    batches: int
    latest_ms: float
    goodbyes: int


class _Stream:
    def __init__(self, app_id: str, publisher: Publisher, channel: aio.Channel, phase_ns: int) -> None:
        self._app_id = app_id
        self._publisher = publisher
        self._phase_ns = phase_ns
        self._call: aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(_METHOD)()
        self._stopped = asyncio.Event()
        self._answers: asyncio.Task[bytes] | None = None
        self.sent = 0
        self.latest_ns = 0

    async def open(self) -> None:
        request = ingest_pb2.PublishRequest(
            open=ingest_pb2.PublishOpen(
                app_id=self._app_id,
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

    async def run(self, start_ns: int, wall_offset_ns: int, packets: Sequence[tuple[int, bytes]]) -> None:
        """Sends until it is stopped. Times are monotonic; the offset makes them UTC."""
        for due_ns, batch in _batches(start_ns + self._phase_ns, wall_offset_ns, packets):
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
        goodbye = ingest_pb2.PublishResponse.FromString(last).goodbye
        return goodbye.reason == ingest_pb2.GOODBYE_REASON_CLOSED

    async def _read(self) -> bytes:
        last = b""
        while isinstance(answer := await self._call.read(), bytes):
            last = answer
        return last


def _batches(
    start_ns: int, wall_offset_ns: int, packets: Sequence[tuple[int, bytes]]
) -> Iterator[tuple[int, bytes]]:
    """When each batch is sent, and its bytes; a batch that would have no frames is left out."""
    batch = ingest_pb2.FrameBatch(track_id=_TRACK)
    due_ns = start_ns + _BATCH_NS
    for sequence, (number, payload) in enumerate(_repeated(packets), start=1):
        captured_ns = start_ns + number * _FRAME_NS
        if captured_ns >= due_ns:
            batch.sent_time.FromNanoseconds(due_ns + wall_offset_ns)
            yield due_ns, ingest_pb2.PublishRequest(frames=batch).SerializeToString()
            batch = ingest_pb2.FrameBatch(track_id=_TRACK)
            due_ns += (captured_ns - due_ns) // _BATCH_NS * _BATCH_NS + _BATCH_NS
        frame = batch.frames.add(sequence=sequence, payload=payload)
        frame.media_time.FromNanoseconds(number * _FRAME_NS)
        frame.capture_time.FromNanoseconds(captured_ns + wall_offset_ns)


def _repeated(packets: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    for first in itertools.count(0, _CLIP_FRAMES):
        for number, payload in packets:
            if number < _CLIP_FRAMES:
                yield first + number, payload


async def _run() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    given = json.loads(await lines.readline())
    order = LoadOrder(**{**given, "publishers": [Publisher(**each) for each in given["publishers"]]})
    count = len(order.publishers)
    options = (("grpc.use_local_subchannel_pool", 1),)
    rooms = {publisher.room_id for publisher in order.publishers}
    channels = {room_id: aio.insecure_channel(order.target, options=options) for room_id in rooms}
    streams = [
        _Stream(order.app_id, publisher, channels[publisher.room_id], index * _BATCH_NS // count)
        for index, publisher in enumerate(order.publishers)
    ]
    for first in range(0, count, _OPENING_AT_ONCE):
        await asyncio.gather(*(stream.open() for stream in streams[first : first + _OPENING_AT_ONCE]))
    packets = {path: Clip(Path(path)).packets() for path in {each.clip for each in order.publishers}}
    _say({"opened": count})
    await lines.readline()
    start_ns = time.monotonic_ns() + _START_NS
    wall_offset_ns = time.time_ns() - time.monotonic_ns()
    _say({"start_ns": start_ns})
    sending = [
        asyncio.create_task(stream.run(start_ns, wall_offset_ns, packets[publisher.clip]))
        for stream, publisher in zip(streams, order.publishers, strict=True)
    ]
    await lines.readline()
    for stream in streams:
        stream.stop()
    await asyncio.gather(*sending)
    goodbyes = await asyncio.gather(*(stream.close() for stream in streams))
    for channel in channels.values():
        await channel.close()
    latest_ms = max(stream.latest_ns for stream in streams) / 1e6
    _say(asdict(LoadReport(sum(stream.sent for stream in streams), latest_ms, sum(goodbyes))))


def _say(facts: dict[str, object]) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    uvloop.run(_run())
