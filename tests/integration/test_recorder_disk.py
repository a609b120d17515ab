"""A spool that can't be written: the recordings that it hits end where they are whole, and go on when it can."""

import asyncio
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from roomtape.v1 import ingest_pb2
from roomtape_service.recording import protocol
from roomtape_service.recording.protocol import Container, FrameStatistics, RecordingKind, TrackCodec
from tests.support.audio import Samples, ffmpeg_decode, join, noise, opus_packets
from tests.support.recorder import EPOCH_NS, MS, Publisher, RecorderNode, order

FRAME = 960
LIMIT_BYTES = 240_000


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[RecorderNode]:
    async with RecorderNode(tmp_path) as recorder:
        yield recorder


def limit_files(node: RecorderNode, size: int) -> None:
    """No file of the worker can grow beyond `size`, as if the disk were full."""
    _, hard = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (size, hard))


async def speak(node: RecorderNode, publisher: Publisher, signal: Samples) -> None:
    """In little more than no time, but not in one piece."""
    for at in range(0, len(signal), 5 * FRAME):
        part = signal[at : at + 5 * FRAME]
        frames = [
            publisher.frame(part[at : at + FRAME].tobytes(), FRAME) for at in range(0, len(part), FRAME)
        ]
        node.write(publisher.message(publisher.batch(frames)))
        await asyncio.sleep(0.04)


def again(node: RecorderNode, publisher: Publisher, after: int) -> None:
    """Sends what was not safe."""
    frames: list[ingest_pb2.Frame] = [frame for frame in publisher.log if frame.sequence > after]
    for at in range(0, len(frames), 5):
        node.write(publisher.message(publisher.batch(frames[at : at + 5])))


def signal_of(segments: list[protocol.SegmentCompleted]) -> Samples:
    return join([ffmpeg_decode(file.path) for each in segments for file in each.files])


@pytest.mark.parametrize("kind", list(RecordingKind))
async def test_a_full_disk_ends_a_segment_and_loses_nothing(node: RecorderNode, kind: RecordingKind) -> None:
    publisher = Publisher(1)
    other = Publisher(2, TrackCodec.OPUS, user_id="bob", key="s2/mic")
    node.tell(protocol.RoomOpen(1, protocol.RoomClock.MEDIA, EPOCH_NS), publisher.open(), other.open())
    node.tell(order("hit", kind=kind), protocol.RecordingTracks("hit", (1,)))
    node.tell(order("small", Container.OGG), protocol.RecordingTracks("small", (2,)))
    limit_files(node, LIMIT_BYTES)
    signal = noise(3.0)
    await speak(node, publisher, signal)
    await node.until(lambda: bool(node.all(protocol.RecordingFailed)), "it is told")
    [failed] = node.all(protocol.RecordingFailed)
    [first] = node.completed("hit")
    assert (failed.recording_id, failed.reason) == ("hit", "SPOOL_UNWRITABLE")
    assert node.said.index(first) < node.said.index(failed)
    assert first.interrupted
    assert node.safe[1] == first.resume["session/mic"].sequence
    assert np.array_equal(signal_of([first]), signal[: first.sample_count])

    packets = opus_packets(noise(1.0))
    for packet in packets:
        node.write(other.message(other.batch([other.frame(packet, FRAME)])))
    await node.until_safe(2, len(packets))

    limit_files(node, resource.RLIM_INFINITY)
    position_ns = first.end_ns if kind is RecordingKind.MIXED else None
    resumed = order("hit", kind=kind, next_segment=1, resume=dict(first.resume), position_ns=position_ns)
    node.tell(resumed, protocol.RecordingTracks("hit", (1,)))
    again(node, publisher, node.safe[1])
    await node.until_safe(1, 140)
    await speak(node, publisher, signal)
    node.tell(protocol.TrackClose(1, publisher.capture_ns()), protocol.TrackClose(2, other.capture_ns()))
    segments = await node.stop("hit", 0)
    assert [each.segment for each in segments] == [0, 1]
    assert np.array_equal(signal_of(segments), join([signal, signal]))
    assert sum(each.statistics.recorded for each in segments) == 300
    [small] = await node.stop("small", 0)
    assert small.statistics == FrameStatistics(recorded=len(packets))
    assert not small.interrupted


async def test_a_spool_that_is_gone_makes_no_segment(node: RecorderNode) -> None:
    publisher = Publisher(1)
    folder = Path(node.all(protocol.Hello)[0].spool)
    away = folder.rename(folder.with_name("away"))
    node.tell(protocol.RoomOpen(1, protocol.RoomClock.MEDIA, EPOCH_NS), publisher.open())
    node.tell(order("r"), protocol.RecordingTracks("r", (1,)))
    signal = noise(1.0)
    await speak(node, publisher, signal)
    await node.until(lambda: bool(node.all(protocol.RecordingFailed)), "it is told")
    assert node.all(protocol.SegmentStarted) == []
    assert node.completed("r") == []
    away.rename(folder)
    node.tell(order("r"), protocol.RecordingTracks("r", (1,)))
    again(node, publisher, 0)
    node.tell(protocol.TrackClose(1, publisher.capture_ns()))
    segments = await node.stop("r", 0)
    assert np.array_equal(signal_of(segments), signal)
    assert segments[0].segment == 0


async def test_a_segment_that_can_not_be_finished_is_tried_again(node: RecorderNode) -> None:
    publisher = Publisher(1)
    folder = Path(node.all(protocol.Hello)[0].spool)
    node.tell(protocol.RoomOpen(1, protocol.RoomClock.MEDIA, EPOCH_NS), publisher.open())
    node.tell(order("r"), protocol.RecordingTracks("r", (1,)))
    signal = noise(1.0)
    await speak(node, publisher, signal)
    await node.until_safe(1, 50)
    away = folder.rename(folder.with_name("away"))
    node.tell(
        protocol.TrackClose(1, publisher.capture_ns()), protocol.RecordingStop("r", publisher.capture_ns())
    )
    await node.until(lambda: bool(node.all(protocol.Warning)), "it is told")
    assert node.all(protocol.Warning)[0].reason == "SPOOL_UNWRITABLE"
    assert node.all(protocol.RecordingStopped) == []
    away.rename(folder)
    [segment] = await node.stop("r", 0)
    assert np.array_equal(signal_of([segment]), signal)
    assert not segment.interrupted


async def test_with_power_durability_the_same_is_safe(tmp_path: Path) -> None:
    async with RecorderNode(tmp_path, "--durability", "power") as node:
        publisher = Publisher(1)
        node.tell(protocol.RoomOpen(1, protocol.RoomClock.MEDIA, EPOCH_NS), publisher.open())
        node.tell(order("r", Container.WAV, segment_ns=500 * MS), protocol.RecordingTracks("r", (1,)))
        signal = noise(1.0)
        await speak(node, publisher, signal)
        await node.until_safe(1, 50)
        node.tell(protocol.TrackClose(1, publisher.capture_ns()))
        segments = await node.stop("r", 0)
        assert np.array_equal(signal_of(segments), signal)


async def test_what_nobody_sends_again_after_a_full_disk_is_a_gap(node: RecorderNode) -> None:
    publisher = Publisher(1)
    room = protocol.RoomOpen(1, protocol.RoomClock.MEDIA, EPOCH_NS, protocol.GapReason.SPOOL_FULL)
    for each in range(40):
        publisher.frame(bytes(2 * FRAME), FRAME)
        assert publisher.sequence == each + 1
    resume = {publisher.key: protocol.Resume(10, EPOCH_NS)}
    node.tell(room, publisher.open(offset_ns=EPOCH_NS, sequence=10))
    node.tell(order("r", next_segment=1, resume=resume), protocol.RecordingTracks("r", (1,)))
    again(node, publisher, 25)
    node.tell(protocol.TrackClose(1, publisher.capture_ns()))
    await node.stop("r", 0)
    [gap] = node.all(protocol.Gap)
    assert gap.reason is protocol.GapReason.SPOOL_FULL
    assert gap.to_ns - gap.from_ns == 15 * 20 * MS


async def test_what_was_written_before_is_not_missing_when_somebody_comes_again(node: RecorderNode) -> None:
    publisher = Publisher(1)
    for _ in range(40):
        publisher.frame(bytes(2 * FRAME), FRAME)
    resume = {publisher.key: protocol.Resume(25, EPOCH_NS)}
    node.tell(protocol.RoomOpen(1, protocol.RoomClock.MEDIA, EPOCH_NS), publisher.open(sequence=0))
    started = order("r", next_segment=1, resume=resume, position_ns=EPOCH_NS + 25 * 20 * MS)
    node.tell(started, protocol.RecordingTracks("r", (1,)))
    again(node, publisher, 25)
    node.tell(protocol.TrackClose(1, publisher.capture_ns()))
    [segment] = await node.stop("r", 0)
    assert segment.sample_count == 15 * FRAME
    assert node.all(protocol.Gap) == []
