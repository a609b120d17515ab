"""Single recordings of a real worker process: where they begin and end, and what is told of that."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from roomtape_service.recording import protocol
from roomtape_service.recording.protocol import Container, FrameStatistics, RoomClock, TrackCodec
from tests.support.audio import ffmpeg_decode, join, noise, opus_packets, tone
from tests.support.recorder import EPOCH_NS, MS, SECOND, Publisher, RecorderNode, order
from tests.support.single import begin, end, path_of, pcm_frames, send

FRAME = 960
TRACK = 7


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[RecorderNode]:
    async with RecorderNode(tmp_path) as recorder:
        yield recorder


async def test_a_mute_ends_the_segment_where_that_is_the_rule(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("ends", mute_ends_segment=True), order("goes-on"))
    send(node, publisher, pcm_frames(publisher, tone(440, 1.0)))
    node.tell(protocol.TrackMute(TRACK, True, publisher.capture_ns()))
    for _ in range(4):
        publisher.pause(500 * MS)
        node.write(publisher.message(publisher.batch()))
    node.tell(protocol.TrackMute(TRACK, False, publisher.capture_ns()))
    send(node, publisher, pcm_frames(publisher, tone(440, 1.0)))
    ended = await end(node, publisher, "ends")
    whole = await node.stop("goes-on", 0)
    assert [(each.start_ns - EPOCH_NS, each.end_ns - EPOCH_NS) for each in ended] == [
        (0, SECOND),
        (3 * SECOND, 4 * SECOND),
    ]
    assert [(each.start_ns - EPOCH_NS, each.end_ns - EPOCH_NS) for each in whole] == [(0, 4 * SECOND)]


async def test_a_mute_keeps_silence_away_from_where_the_segment_before_ended(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    publisher.pause(2 * SECOND)
    begin(
        node,
        publisher,
        order("ends", mute_ends_segment=True, position_ns=EPOCH_NS + SECOND),
        order("goes-on", position_ns=EPOCH_NS + SECOND),
    )
    node.tell(protocol.TrackMute(TRACK, True, EPOCH_NS + SECOND))
    send(node, publisher, pcm_frames(publisher, tone(440, 1.0)))
    [ended] = await end(node, publisher, "ends")
    [whole] = await node.stop("goes-on", 0)
    assert (ended.start_ns, whole.start_ns) == (EPOCH_NS + 2 * SECOND, EPOCH_NS + SECOND)


async def test_long_breaks_end_the_segment_and_long_silence_does_not(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r"))
    send(node, publisher, pcm_frames(publisher, tone(440, 1.0)))
    for _ in range(80):
        publisher.pause(500 * MS)
        node.write(publisher.message(publisher.batch()))
    send(node, publisher, pcm_frames(publisher, tone(440, 1.0)))
    publisher.pause(32 * SECOND)
    send(node, publisher, pcm_frames(publisher, tone(440, 1.0)))
    segments = await end(node, publisher)
    times = [(each.start_ns - EPOCH_NS, each.end_ns - EPOCH_NS) for each in segments]
    assert times == [(0, 42 * SECOND), (74 * SECOND, 75 * SECOND)]


async def test_a_lost_publisher_ends_the_segment_after_the_wait(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r", break_wait_ns=300 * MS))
    signal = noise(1.0)
    send(node, publisher, pcm_frames(publisher, signal))
    node.tell(protocol.TrackLost(TRACK, publisher.capture_ns()))
    await node.until(lambda: len(node.completed("r")) == 1, "the segment ends")
    node.tell(protocol.TrackBack(TRACK))
    send(node, publisher, pcm_frames(publisher, signal))
    segments = await end(node, publisher)
    assert np.array_equal(
        join([ffmpeg_decode(path_of(each, Container.WAV)) for each in segments]), join([signal] * 2)
    )


async def test_what_a_lost_publisher_does_not_send_again_is_told(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r"))
    frames = pcm_frames(publisher, noise(3.0))
    send(node, publisher, frames[:50])
    node.tell(protocol.TrackLost(TRACK, publisher.capture_ns()), protocol.TrackBack(TRACK))
    send(node, publisher, frames[100:])
    [segment] = await end(node, publisher)
    [gap] = node.all(protocol.Gap)
    assert (gap.recording_id, gap.user_id, gap.reason) == ("r", "alice", protocol.GapReason.PUBLISHER_LOST)
    assert (gap.from_ns, gap.to_ns) == (EPOCH_NS + SECOND, EPOCH_NS + 2 * SECOND)
    assert segment.statistics == FrameStatistics(recorded=100, lost=50)
    assert segment.sample_count == 3 * 48_000


async def test_a_track_that_is_closed_is_filled_up_to_its_end(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r"))
    send(node, publisher, pcm_frames(publisher, noise(1.0)))
    node.tell(protocol.TrackClose(TRACK, EPOCH_NS + 2500 * MS))
    await node.until(lambda: len(node.completed("r")) == 1, "the segment ends")
    assert node.completed("r")[0].end_ns == EPOCH_NS + 2500 * MS
    assert node.safe == {TRACK: 50}


async def test_a_user_who_comes_back_goes_on_in_the_next_segment(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r"))
    send(node, publisher, pcm_frames(publisher, noise(1.0)))
    node.tell(protocol.TrackClose(TRACK, publisher.capture_ns()))
    again = Publisher(8, rate=16_000, channels=2, key="second/mic", start_ns=EPOCH_NS + 5 * SECOND)
    node.tell(again.open(), protocol.RecordingTracks("r", (8, TRACK)))
    send(node, again, pcm_frames(again, noise(1.0, 16_000, channels=2)))
    segments = await end(node, again)
    assert [(each.segment, each.sample_rate, each.channels) for each in segments] == [
        (0, 48_000, 1),
        (1, 16_000, 2),
    ]
    assert segments[1].start_ns == EPOCH_NS + 5 * SECOND


async def test_recording_starts_where_it_was_asked_to(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r", from_ns=EPOCH_NS + 510 * MS))
    signal = noise(1.0)
    send(node, publisher, pcm_frames(publisher, signal))
    [segment] = await end(node, publisher)
    # The frame in which it lies is in it.
    assert segment.start_ns == EPOCH_NS + 500 * MS
    assert np.array_equal(ffmpeg_decode(path_of(segment, Container.WAV)), signal[24_000:])
    assert node.safe == {TRACK: 50}


async def test_one_track_can_be_in_many_recordings(node: RecorderNode) -> None:
    publisher = Publisher(TRACK, TrackCodec.OPUS)
    orders = [order(f"r{index}", Container.WAV) for index in range(4)]
    begin(node, publisher, *orders)
    packets = opus_packets(noise(1.0))
    send(node, publisher, [publisher.frame(packet, FRAME) for packet in packets])
    node.tell(protocol.TrackClose(TRACK, publisher.capture_ns()))
    segments = [(await node.stop(each.recording_id, 0))[0] for each in orders]
    assert len({file.sha256 for each in segments for file in each.files}) == 1


async def test_a_track_that_is_taken_out_ends_there(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r"), order("all"))
    signal = noise(3.0)
    frames = pcm_frames(publisher, signal)
    send(node, publisher, frames[:50])
    node.tell(protocol.RecordingTracks("r", ()))
    send(node, publisher, frames[50:100])
    node.tell(protocol.RecordingTracks("r", (TRACK,)))
    send(node, publisher, frames[100:])
    segments = await end(node, publisher)
    [whole] = await node.stop("all", 0)
    parts = [ffmpeg_decode(path_of(each, Container.WAV)) for each in segments]
    assert np.array_equal(join(parts), join([signal[:48_000], signal[96_000:]]))
    assert np.array_equal(ffmpeg_decode(path_of(whole, Container.WAV)), signal)
    assert [each.statistics.lost for each in segments] == [0, 0]


async def test_a_recording_that_resumes_behind_others_gets_what_it_lacks(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("first"))
    signal = noise(3.0)
    frames = pcm_frames(publisher, signal)
    send(node, publisher, frames[:100])
    await node.until_safe(TRACK, 100)
    resume = {publisher.key: protocol.Resume(40, EPOCH_NS)}
    node.tell(order("behind", resume=resume, next_segment=3), protocol.RecordingTracks("behind", (TRACK,)))
    send(node, publisher, frames[30:])
    [behind] = await end(node, publisher, "behind")
    [first] = await node.stop("first", 0)
    assert np.array_equal(ffmpeg_decode(path_of(first, Container.WAV)), signal)
    assert behind.segment == 3
    assert np.array_equal(ffmpeg_decode(path_of(behind, Container.WAV)), signal[40 * FRAME :])
    assert behind.start_ns == EPOCH_NS + 800 * MS


async def test_a_recording_of_nothing_has_no_segment(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r"))
    node.write(publisher.message(publisher.batch()))
    assert await end(node, publisher) == []
    assert node.all(protocol.SegmentStarted) == []


async def test_a_worker_that_is_told_to_stop_leaves_whole_segments(node: RecorderNode) -> None:
    publisher = Publisher(TRACK, TrackCodec.OPUS)
    begin(node, publisher, order("r", Container.OGG, Container.MP3))
    packets = opus_packets(noise(1.0))
    send(node, publisher, [publisher.frame(packet, FRAME) for packet in packets])
    node.tell(protocol.Shutdown())
    assert await node.exit_code() == 0
    await node.until(lambda: protocol.Bye() in node.said, "it says bye")
    [segment] = node.completed("r")
    assert not segment.interrupted
    assert {file.sample_count for file in segment.files} == {len(packets) * FRAME}
    assert node.all(protocol.RecordingStopped) == []
    assert node.said[-1] == protocol.Bye()


async def test_a_worker_ends_with_its_node(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r"))
    send(node, publisher, pcm_frames(publisher, noise(1.0)))
    await node.until_safe(TRACK, 50)
    node.hang_up()
    assert await node.exit_code() == 3
    assert node.completed("r") == []


async def test_media_that_comes_again_after_an_interruption_is_told_if_some_does_not(
    node: RecorderNode,
) -> None:
    publisher = Publisher(TRACK)
    frames = pcm_frames(publisher, noise(2.0))
    resume = {publisher.key: protocol.Resume(40, EPOCH_NS)}
    node.tell(protocol.RoomOpen(1, RoomClock.MEDIA, EPOCH_NS), publisher.open(sequence=40))
    node.tell(order("r", resume=resume, next_segment=1), protocol.RecordingTracks("r", (TRACK,)))
    send(node, publisher, frames[60:])
    [segment] = await end(node, publisher)
    [gap] = node.all(protocol.Gap)
    assert gap.reason is protocol.GapReason.INTERRUPTED
    assert (gap.from_ns, gap.to_ns) == (EPOCH_NS + 800 * MS, EPOCH_NS + 1200 * MS)
    assert segment.statistics == FrameStatistics(recorded=40, lost=20)


async def test_who_was_recorded_to_the_end_and_comes_again_is_told_so(node: RecorderNode) -> None:
    """Their goodbye got lost: they send again what was not acknowledged, and close at once."""
    publisher = Publisher(TRACK)
    frames = pcm_frames(publisher, noise(1.0))
    resume = {publisher.key: protocol.Resume(50, EPOCH_NS)}
    node.tell(protocol.RoomOpen(1, RoomClock.ARRIVAL, EPOCH_NS), order("r", resume=resume, next_segment=1))
    node.tell(publisher.open(sequence=None), protocol.RecordingTracks("r", (TRACK,)))
    send(node, publisher, frames[40:])
    node.tell(protocol.TrackClose(TRACK, publisher.capture_ns()))
    await node.until_safe(TRACK, 50)
    assert await node.stop("r", 0) == []


async def test_a_track_is_recorded_into_the_containers_that_can_hold_it(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("some", Container.OGG, Container.WAV), order("none", Container.OGG))
    signal = noise(1.0)
    send(node, publisher, pcm_frames(publisher, signal))
    [segment] = await end(node, publisher, "some")
    assert [file.container for file in segment.files] == [Container.WAV]
    assert await node.stop("none", 0) == []
    assert node.safe == {TRACK: 50}


@pytest.mark.parametrize("goes_on", [True, False])
@pytest.mark.parametrize("is_known", [True, False])
async def test_a_segment_does_not_begin_before_the_end_of_the_one_before(
    node: RecorderNode, goes_on: bool, is_known: bool
) -> None:
    """A clock that is behind after a restart: all media is there, and pauses make good what it is off."""
    rate, behind_ns = 8_000, 104_500_000
    publisher = Publisher(TRACK, rate=rate, start_ns=EPOCH_NS + 10 * SECOND)
    ended_ns = publisher.start_ns + behind_ns
    resume = {publisher.key: protocol.Resume(0, publisher.start_ns)} if is_known else {}
    started = order(
        "r",
        next_segment=1,
        resume=resume,
        position_ns=ended_ns if goes_on else None,
        ended_ns=ended_ns,
    )
    begin(node, publisher, started, clock=RoomClock.ARRIVAL)
    first, second = noise(1.0, rate), noise(1.0, rate)
    send(node, publisher, pcm_frames(publisher, first))
    publisher.pause(SECOND)
    send(node, publisher, pcm_frames(publisher, second))
    [segment] = await end(node, publisher)
    assert segment.start_ns == ended_ns
    assert segment.end_ns == publisher.start_ns + 3 * SECOND
    assert segment.statistics == FrameStatistics(recorded=100)
    heard = ffmpeg_decode(segment.files[0].path)
    assert np.array_equal(heard[:rate], first)
    assert np.array_equal(heard[-rate:], second)
    assert not heard[rate:-rate].any()


async def test_who_comes_again_at_once_goes_on_after_what_is_recorded(node: RecorderNode) -> None:
    publisher = Publisher(TRACK)
    begin(node, publisher, order("r"), clock=RoomClock.ARRIVAL)
    first, second = noise(1.0), noise(1.0, 16_000)
    send(node, publisher, pcm_frames(publisher, first))
    node.tell(protocol.TrackClose(TRACK, publisher.capture_ns() + 100 * MS + 7))
    again = Publisher(TRACK + 1, key="next/mic", rate=16_000, start_ns=publisher.capture_ns())
    node.tell(again.open(), protocol.RecordingTracks("r", (again.handle,)))
    send(node, again, pcm_frames(again, second))
    before, after = await end(node, again)
    assert 0 <= after.start_ns - before.end_ns < SECOND // 16_000
    assert np.array_equal(ffmpeg_decode(after.files[0].path), second)
