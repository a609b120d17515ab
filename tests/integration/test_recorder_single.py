"""Single recordings of a real worker process: what is in their files."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from roomtape_service.recording import protocol
from roomtape_service.recording.protocol import Container, FrameStatistics, RoomClock, TrackCodec
from tests.support.audio import ffmpeg_decode, find_tone, join, noise, opus_packets, tone
from tests.support.recorder import EPOCH_NS, MS, SECOND, Publisher, RecorderNode, order
from tests.support.single import begin, decode, end, path_of, pcm_frames, send

FRAME = 960
TRACK = 7


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[RecorderNode]:
    async with RecorderNode(tmp_path) as recorder:
        yield recorder


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 1), (44_100, 2), (48_000, 2)])
async def test_pcm_comes_out_as_it_went_in(node: RecorderNode, rate: int, channels: int) -> None:
    publisher = Publisher(TRACK, rate=rate, channels=channels)
    begin(node, publisher, order("r", Container.WAV, Container.MP3))
    signal = noise(2.0, rate, channels=channels)
    send(node, publisher, pcm_frames(publisher, signal))
    [segment] = await end(node, publisher)
    assert np.array_equal(ffmpeg_decode(path_of(segment, Container.WAV), channels), signal)
    assert len(ffmpeg_decode(path_of(segment, Container.MP3), channels)) == len(signal)
    assert (segment.sample_rate, segment.channels, segment.sample_count) == (rate, channels, len(signal))
    assert (segment.start_ns, segment.end_ns) == (EPOCH_NS, EPOCH_NS + 2 * SECOND)
    assert segment.statistics == FrameStatistics(recorded=100)
    assert not segment.interrupted
    assert node.safe == {TRACK: 100}


@pytest.mark.parametrize("channels", [1, 2])
async def test_opus_goes_into_all_containers_at_once(node: RecorderNode, channels: int) -> None:
    publisher = Publisher(TRACK, TrackCodec.OPUS, channels=channels)
    begin(node, publisher, order("r", *Container))
    signal = tone(440, 2.0, channels=channels)
    packets = opus_packets(signal)
    send(node, publisher, [publisher.frame(packet, FRAME) for packet in packets])
    [segment] = await end(node, publisher)
    decoded = {each: decode(segment, each, channels) for each in Container}
    assert {len(each) for each in decoded.values()} == {len(packets) * FRAME}
    assert {file.sample_count for file in segment.files} == {len(packets) * FRAME}
    for heard in decoded.values():
        [span] = find_tone(heard, 440, 48_000)
        assert (span.start, span.end) == pytest.approx((0, 2), abs=0.04)
        assert span.dbfs == pytest.approx(-12, abs=1)


async def test_files_are_announced_and_grow_while_the_user_speaks(node: RecorderNode) -> None:
    publisher = Publisher(TRACK, TrackCodec.OPUS)
    begin(node, publisher, order("r", Container.OGG, Container.WAV, Container.MP3), clock=RoomClock.ARRIVAL)
    packets = opus_packets(noise(3.0))
    sizes: dict[str, list[int]] = {}
    for index in range(20):
        send(
            node, publisher, [publisher.frame(packet, FRAME) for packet in packets[index * 5 : index * 5 + 5]]
        )
        await asyncio.sleep(0.1)
        for started in node.all(protocol.SegmentStarted):
            for file in started.files:
                sizes.setdefault(file.path, []).append(Path(file.path).stat().st_size)
    assert len(sizes) == 3
    assert all(each[-1] > each[len(each) // 2] > each[0] > 0 for each in sizes.values())
    # After two seconds, at most the newest is not on disk.
    assert node.safe[TRACK] >= 100 - 50


async def test_pauses_become_silence_of_the_same_length(node: RecorderNode) -> None:
    publisher = Publisher(TRACK, TrackCodec.OPUS)
    begin(node, publisher, order("r", *Container))
    packets = opus_packets(tone(440, 1.0))
    for pause_ms in (700, 1_234, 5_000, 0):
        send(node, publisher, [publisher.frame(packet, FRAME) for packet in packets])
        publisher.pause(pause_ms * MS)
        node.write(publisher.message(publisher.batch()))
    [segment] = await end(node, publisher)
    spurt = len(packets) * 0.02
    starts = np.cumsum([0, spurt + 0.7, spurt + 1.234, spurt + 5.0])
    for container in Container:
        heard = decode(segment, container)
        spans = find_tone(heard, 440, 48_000)
        assert [span.start for span in spans] == pytest.approx(list(starts), abs=0.012)
        assert abs(len(heard) - segment.sample_count) < 120
    total = 4 * len(packets) * FRAME + round((0.7 + 1.234 + 5.0) * 48_000)
    assert segment.sample_count == total


async def test_loss_reordering_and_duplicates_are_counted_exactly(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r"))
    signal = noise(10.0)
    frames = pcm_frames(publisher, signal)
    randomness = random.Random(5)
    lost = set(randomness.sample(range(1, len(frames) - 1), 20))
    arriving = [frame for index, frame in enumerate(frames) if index not in lost]
    swapped = 0
    for index in range(3, len(arriving) - 3, 40):
        if arriving[index].sequence + 1 == arriving[index + 1].sequence:
            arriving[index], arriving[index + 1] = arriving[index + 1], arriving[index]
            swapped += 1
    duplicates = [arriving[index] for index in range(0, len(arriving), 50)]
    send(node, publisher, arriving)
    send(node, publisher, duplicates)
    [segment] = await end(node, publisher)
    assert segment.statistics == FrameStatistics(
        recorded=len(arriving), lost=len(lost), duplicated=len(duplicates), reordered=swapped, rejected=0
    )
    expected = signal.copy()
    for index in lost:
        expected[index * FRAME : (index + 1) * FRAME] = 0
    assert np.array_equal(ffmpeg_decode(path_of(segment, Container.WAV)), expected)


async def test_a_frame_that_comes_too_late_is_rejected_and_not_lost(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r"))
    frames = pcm_frames(publisher, noise(2.0))
    send(node, publisher, [frame for frame in frames if frame.sequence != 20])
    await node.until_safe(TRACK, 90)
    send(node, publisher, [frames[19]])
    [segment] = await end(node, publisher)
    assert segment.statistics == FrameStatistics(recorded=99, rejected=1)


@pytest.mark.parametrize("kind", protocol.RecordingKind)
async def test_a_frame_of_a_segment_that_is_cut_already_counts_once(
    node: RecorderNode, kind: protocol.RecordingKind
) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r", kind=kind, segment_ns=SECOND))
    frames = pcm_frames(publisher, noise(3.0))
    early = [frame for frame in frames if frame.sequence not in (20, 120)]
    send(node, publisher, early)
    await node.until(lambda: len(node.completed("r")) >= 1, "the first segment is cut")
    await node.until_safe(TRACK, 140)
    send(node, publisher, [frames[19], frames[119]])
    segments = await end(node, publisher)
    assert [each.statistics for each in segments] == [
        FrameStatistics(recorded=49, lost=1),
        FrameStatistics(recorded=50),
        FrameStatistics(recorded=49, rejected=1),
    ]


async def test_payloads_that_are_none_become_silence_and_are_told(node: RecorderNode) -> None:
    publisher = Publisher(TRACK, TrackCodec.OPUS)
    begin(node, publisher, order("r", *Container))
    packets = opus_packets(tone(440, 2.0))[:100]
    broken = {10: b"", 11: b"\xff" * 3, 50: b"\xfb\x00", 51: b"\xf9\x00"}
    send(
        node,
        publisher,
        [publisher.frame(broken.get(index, each), FRAME) for index, each in enumerate(packets)],
    )
    [segment] = await end(node, publisher)
    assert segment.statistics == FrameStatistics(recorded=96, rejected=4)
    told = node.all(protocol.Rejected)
    assert {each.reason for each in told} == {"CORRUPT_PAYLOAD"}
    assert sorted(n for each in told for n in range(each.first, each.last + 1)) == [11, 12, 51, 52]
    for container in Container:
        heard = decode(segment, container)
        assert len(heard) == 100 * FRAME
    silent = ffmpeg_decode(path_of(segment, Container.WAV))[10 * FRAME : 12 * FRAME]
    assert not silent.any()


async def test_pcm_of_odd_size_is_rejected(node: RecorderNode) -> None:
    publisher = Publisher(TRACK, channels=2)
    begin(node, publisher, order("r"))
    signal = noise(0.2, channels=2)
    frames = pcm_frames(publisher, signal)
    frames[4].payload = frames[4].payload[:-1]
    send(node, publisher, frames)
    [segment] = await end(node, publisher)
    expected = signal.copy()
    expected[4 * FRAME : 5 * FRAME] = 0
    assert np.array_equal(ffmpeg_decode(path_of(segment, Container.WAV), 2), expected)
    assert segment.statistics == FrameStatistics(recorded=9, rejected=1)


async def test_times_that_can_not_be_are_rejected_and_harm_nothing(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r"))
    signal = noise(1.0)
    frames = pcm_frames(publisher, signal)
    frames[20].media_time.FromNanoseconds(0)
    frames[30].capture_time.FromNanoseconds(EPOCH_NS + 48 * 3600 * SECOND)
    send(node, publisher, frames)
    [segment] = await end(node, publisher)
    told = node.all(protocol.Rejected)
    assert [(each.first, each.last, each.reason) for each in told] == [
        (21, 21, "FRAME_TIME_INVALID"),
        (31, 31, "FRAME_TIME_INVALID"),
    ]
    expected = signal.copy()
    expected[20 * FRAME : 21 * FRAME] = 0
    expected[30 * FRAME : 31 * FRAME] = 0
    assert np.array_equal(ffmpeg_decode(path_of(segment, Container.WAV)), expected)


@pytest.mark.parametrize("segment_ms", [1000, 1010])
async def test_segments_are_cut_at_frames_and_join_without_a_seam(
    node: RecorderNode, segment_ms: int
) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r", Container.WAV, Container.MP3, segment_ns=segment_ms * MS))
    signal = noise(4.5)
    send(node, publisher, pcm_frames(publisher, signal))
    segments = await end(node, publisher)
    # Frames of 20 ms: what does not fit goes into the next.
    assert [each.sample_count for each in segments] == [48_000] * 4 + [24_000]
    assert [each.segment for each in segments] == [0, 1, 2, 3, 4]
    for container in (Container.WAV, Container.MP3):
        parts = [ffmpeg_decode(path_of(each, container)) for each in segments]
        assert [len(part) for part in parts] == [each.sample_count for each in segments]
        if container is Container.WAV:
            assert np.array_equal(join(parts), signal)
    assert [each.start_ns for each in segments[1:]] == [each.end_ns for each in segments[:-1]]


async def test_silence_is_cut_exactly(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r", segment_ns=1500 * MS))
    signal = noise(1.01)
    send(node, publisher, pcm_frames(publisher, signal))
    publisher.pause(3 * SECOND)
    node.write(publisher.message(publisher.batch()))
    send(node, publisher, pcm_frames(publisher, signal))
    segments = await end(node, publisher)
    assert [each.sample_count for each in segments][:3] == [72_000, 72_000, 72_000]
    heard = join([ffmpeg_decode(path_of(each, Container.WAV)) for each in segments])
    first = len(signal) + -len(signal) % FRAME
    assert np.array_equal(heard[: len(signal)], signal)
    assert not heard[first : first + 3 * 48_000].any()
    assert np.array_equal(heard[first + 3 * 48_000 :][: len(signal)], signal)


async def test_segments_end_when_they_are_large(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r", segment_bytes=200_000))
    signal = noise(6.0)
    for start in range(0, len(signal), 48_000):
        send(node, publisher, pcm_frames(publisher, signal[start : start + 48_000]))
        await node.until_safe(TRACK, publisher.sequence)
    segments = await end(node, publisher)
    assert len(segments) == 2
    assert all(200_000 <= file.size < 400_000 for each in segments for file in each.files)
    assert np.array_equal(join([ffmpeg_decode(path_of(each, Container.WAV)) for each in segments]), signal)


async def test_frames_longer_than_a_segment_are_whole(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r", segment_ns=500 * MS))
    signal = noise(3.0)
    for at in range(0, len(signal), 48_000):
        frame = publisher.frame(signal[at : at + 48_000].tobytes(), 48_000)
        node.write(publisher.message(publisher.batch([frame])))
    publisher.pause(SECOND)
    node.write(publisher.message(publisher.batch()))
    segments = await end(node, publisher)
    heard = join([ffmpeg_decode(path_of(each, Container.WAV)) for each in segments])
    assert np.array_equal(heard[: len(signal)], signal)
    assert [each.sample_count for each in segments] == [48_000, 48_000, 48_000, 24_000, 24_000]


async def test_bytes_that_are_no_batch_harm_nothing(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r"))
    signal = noise(1.0)
    frames = pcm_frames(publisher, signal)
    send(node, publisher, frames[:25])
    node.write(protocol.frames_message(TRACK, EPOCH_NS, b"\xff" * 20))
    send(node, publisher, frames[25:])
    [segment] = await end(node, publisher)
    assert np.array_equal(ffmpeg_decode(path_of(segment, Container.WAV)), signal)
