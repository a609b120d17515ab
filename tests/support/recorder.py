"""A node for one worker: drives the real worker process over its socket, and keeps all that it says."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from roomtape.v1 import ingest_pb2
from roomtape_service.recording import protocol
from tests.support.waiting import eventually

__all__ = ["EPOCH_NS", "MS", "SECOND", "Publisher", "RecorderNode", "order"]

SECOND = 1_000_000_000
MS = 1_000_000
EPOCH_NS = 1_700_000_000 * SECOND

T = TypeVar("T")


class RecorderNode:
    """Async context manager: a worker process below `folder`, connected."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.spool = folder / "spool"
        self.said: list[protocol.WorkerOp] = []
        self.safe: dict[int, int] = {}
        self.on_said: Callable[[protocol.WorkerOp], None] = lambda op: None
        self._socket = folder / "node.sock"
        self._arguments = arguments
        self._server: asyncio.Server | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "RecorderNode":
        self.spool.mkdir(exist_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, self._socket)
        await self.start_worker()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.kill()
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        self._socket.unlink(missing_ok=True)

    async def start_worker(self) -> None:
        """A new process; the one before must be gone."""
        hellos = len(self.all(protocol.Hello))
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "roomtape_service.recording.worker"),
            *("--socket", str(self._socket), "--spool", str(self.spool), "--index", "0"),
            *self._arguments,
        )
        await eventually(lambda: len(self.all(protocol.Hello)) > hellos, "the worker says hello")

    @property
    def pid(self) -> int:
        """Of the worker."""
        assert self._process is not None
        return self._process.pid

    async def kill(self, number: int = signal.SIGKILL) -> None:
        """Ends the worker where it stands, unless it is gone already."""
        if self._process is None:
            return
        if self._process.returncode is None:
            os.kill(self._process.pid, number)
        await self._process.wait()
        self._process = None
        if self._reading is not None:
            await self._reading
            self._reading = None

    async def exit_code(self) -> int:
        """Waits for the worker to end by itself."""
        assert self._process is not None
        async with asyncio.timeout(20):
            return await self._process.wait()

    def hang_up(self) -> None:
        """Closes the connection, as a node does that dies."""
        assert self._writer is not None
        self._writer.close()

    def tell(self, *ops: protocol.NodeOp) -> None:
        """Sends messages."""
        for op in ops:
            self.write(protocol.encode(op))

    def write(self, data: bytes) -> None:
        """Sends an encoded message."""
        assert self._writer is not None
        self._writer.write(data)

    async def drain(self) -> None:
        """Waits until the worker keeps up."""
        assert self._writer is not None
        await self._writer.drain()

    def all(self, kind: type[T]) -> list[T]:
        """What the worker said of one kind, in order."""
        return [op for op in self.said if isinstance(op, kind)]

    def completed(self, recording_id: str) -> list[protocol.SegmentCompleted]:
        """Segments of a recording."""
        return [op for op in self.all(protocol.SegmentCompleted) if op.recording_id == recording_id]

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for a condition on what the worker says."""
        await eventually(condition, what)

    async def until_safe(self, track: int, sequence: int) -> None:
        """Waits until the worker calls a frame safe."""
        await eventually(
            lambda: self.safe.get(track, 0) >= sequence, f"frame {sequence} of track {track} is safe"
        )

    async def stop(self, recording_id: str, at_ns: int) -> list[protocol.SegmentCompleted]:
        """Stops a recording, and returns its segments."""
        self.tell(protocol.RecordingStop(recording_id, at_ns))
        stopped = protocol.RecordingStopped(recording_id)
        await eventually(lambda: stopped in self.said, f"{recording_id} has stopped")
        return self.completed(recording_id)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._reading = asyncio.current_task()
        try:
            while (op := await protocol.read_worker_op(reader)) is not None:
                self.said.append(op)
                if isinstance(op, protocol.Safe):
                    for track, sequence in op.tracks.items():
                        assert sequence > self.safe.get(track, 0)
                    self.safe.update(op.tracks)
                self.on_said(op)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def order(
    recording_id: str,
    *containers: protocol.Container,
    kind: protocol.RecordingKind = protocol.RecordingKind.SINGLE,
    room: int = 1,
    segment_ns: int = 7200 * SECOND,
    segment_bytes: int = 1 << 31,
    bitrate: int = 64_000,
    next_segment: int = 0,
    mute_ends_segment: bool = False,
    break_wait_ns: int = 30 * SECOND,
    from_ns: int = 0,
    resume: dict[str, protocol.Resume] | None = None,
    position_ns: int | None = None,
    ended_ns: int | None = None,
    expected: Sequence[str] = (),
) -> protocol.RecordingStart:
    """A recording with the defaults of a task."""
    return protocol.RecordingStart(
        recording_id=recording_id,
        task_id="1",
        room=room,
        kind=kind,
        containers=containers or (protocol.Container.WAV,),
        segment_ns=segment_ns,
        segment_bytes=segment_bytes,
        bitrate=bitrate,
        next_segment=next_segment,
        mute_ends_segment=mute_ends_segment,
        break_wait_ns=break_wait_ns,
        from_ns=from_ns,
        resume=resume or {},
        position_ns=position_ns,
        ended_ns=ended_ns,
        expected=tuple(expected),
    )


@dataclass
class Publisher:
    """One track's frames with their times; `capture_offset_ns` is how far its clock is from the room's."""

    handle: int
    codec: protocol.TrackCodec = protocol.TrackCodec.PCM_S16LE
    rate: int = 48_000
    channels: int = 1
    user_id: str = "alice"
    key: str = "session/mic"
    room: int = 1
    start_ns: int = EPOCH_NS
    capture_offset_ns: int = 0
    drift_ppm: float = 0.0
    sequence: int = 0
    media_ns: int = 0
    log: list[ingest_pb2.Frame] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)
    """By sequence: the publisher's clock after the frame."""

    def open(self, offset_ns: int | None = None, sequence: int | None = 0) -> protocol.TrackOpen:
        """The order to open the track."""
        return protocol.TrackOpen(
            track=self.handle,
            room=self.room,
            user_id=self.user_id,
            key=self.key,
            codec=self.codec,
            sample_rate=self.rate,
            channels=self.channels,
            offset_ns=offset_ns,
            sequence=sequence,
        )

    def capture_ns(self) -> int:
        """The publisher's clock at the current media time."""
        return (
            self.start_ns
            + self.capture_offset_ns
            + self.media_ns
            + round(self.media_ns * self.drift_ppm / 1e6)
        )

    def pause(self, span_ns: int) -> None:
        """Lets time pass in which nothing is sent."""
        self.media_ns += span_ns

    def frame(self, payload: bytes, samples: int) -> ingest_pb2.Frame:
        """The next frame."""
        self.sequence += 1
        frame = ingest_pb2.Frame(sequence=self.sequence, payload=payload)
        frame.media_time.FromNanoseconds(self.media_ns)
        frame.capture_time.FromNanoseconds(self.capture_ns())
        self.media_ns += round(samples * SECOND / self.rate)
        self.log.append(frame)
        self.ends[self.sequence] = self.capture_ns()
        return frame

    def batch(self, frames: Sequence[ingest_pb2.Frame] = ()) -> ingest_pb2.FrameBatch:
        """A batch that is sent when its last frame is over; without frames, now."""
        batch = ingest_pb2.FrameBatch(track_id="mic", frames=frames)
        sent_ns = max((self.ends[frame.sequence] for frame in frames), default=self.capture_ns())
        batch.sent_time.FromNanoseconds(sent_ns)
        return batch

    def message(self, batch: ingest_pb2.FrameBatch, arrival_ns: int | None = None) -> bytes:
        """The message for the worker; by default it arrives when it was sent."""
        sent_ns = batch.sent_time.ToNanoseconds() if batch.HasField("sent_time") else self.capture_ns()
        arrival_ns = sent_ns - self.capture_offset_ns if arrival_ns is None else arrival_ns
        return protocol.frames_message(self.handle, arrival_ns, batch.SerializeToString())
