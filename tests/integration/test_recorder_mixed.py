"""Mixes of a real worker process: everybody in their place, whoever is late, lost, or silent."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from roomtape.v1 import ingest_pb2
from roomtape_service.recording import protocol
from roomtape_service.recording.protocol import Container, RecordingKind, RoomClock, TrackCodec
from roomtape_service.recording.remembering import REMEMBERED_TRACKS
from tests.support.audio import Samples, ToneSpan, ffmpeg_decode, find_tone, join, noise, opus_packets, tone
from tests.support.recorder import EPOCH_NS, MS, SECOND, Publisher, RecorderNode, order

FRAME = 960
HERTZ = {1: 440, 2: 700, 3: 1000, 4: 1300, 5: 1600}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[RecorderNode]:
    async with RecorderNode(tmp_path) as recorder:
        yield recorder


def mix(*containers: Container, **options: int) -> protocol.RecordingStart:
    return order("m", *(containers or (Container.WAV,)), kind=RecordingKind.MIXED, **options)  # type: ignore[arg-type]


def person(handle: int, start_ns: int = 0, rate: int = 48_000, channels: int = 1) -> Publisher:
    return Publisher(
        handle,
        rate=rate,
        channels=channels,
        user_id=f"u{handle}",
        key=f"s{handle}/mic",
        start_ns=EPOCH_NS + start_ns,
    )


def begin(
    node: RecorderNode,
    people: list[Publisher],
    recording: protocol.RecordingStart,
    clock: RoomClock = RoomClock.MEDIA,
) -> None:
    node.tell(protocol.RoomOpen(1, clock, EPOCH_NS), *(each.open() for each in people), recording)
    node.tell(protocol.RecordingTracks("m", tuple(each.handle for each in people)))


def speak(node: RecorderNode, publisher: Publisher, signal: Samples) -> list[ingest_pb2.Frame]:
    """Sends a signal in batches of 100 ms."""
    size = publisher.rate // 50
    frames = [publisher.frame(signal[at : at + size].tobytes(), size) for at in range(0, len(signal), size)]
    for at in range(0, len(frames), 5):
        node.write(publisher.message(publisher.batch(frames[at : at + 5])))
    return frames


def be_silent(node: RecorderNode, publisher: Publisher, seconds: float) -> None:
    """Sends batches without frames, as publishers do twice a second."""
    for _ in range(round(seconds * 2)):
        publisher.pause(500 * MS)
        node.write(publisher.message(publisher.batch()))


async def leave(node: RecorderNode, *people: Publisher) -> None:
    """All close, and all that they sent is safe before the mix is stopped."""
    for each in people:
        node.tell(protocol.TrackClose(each.handle, each.capture_ns()))
    for each in people:
        await node.until_safe(each.handle, each.sequence)


def heard_in(segment: protocol.SegmentCompleted, container: Container = Container.WAV) -> Samples:
    [file] = [file for file in segment.files if file.container is container]
    heard = ffmpeg_decode(file.path)
    assert len(heard) == file.sample_count == segment.sample_count
    return heard


def spans(signal: Samples, hertz: int) -> list[tuple[float, float]]:
    return [(round(span.start, 2), round(span.end, 2)) for span in find_tone(signal, hertz, 48_000)]


async def test_everybody_is_heard_where_and_as_loud_as_they_spoke(node: RecorderNode) -> None:
    people = [
        person(1),
        person(2, SECOND),
        person(3, 2 * SECOND, rate=16_000),
        person(4, 500 * MS, rate=44_100, channels=2),
    ]
    opus = Publisher(5, TrackCodec.OPUS, user_id="u5", key="s5/mic", start_ns=EPOCH_NS + 2500 * MS)
    begin(node, [*people, opus], mix(Container.WAV, Container.MP3))
    for each in people:
        speak(node, each, tone(HERTZ[each.handle], 1.0, each.rate, dbfs=-20, channels=each.channels))
    for packet in opus_packets(tone(HERTZ[5], 1.0, dbfs=-20)):
        node.write(opus.message(opus.batch([opus.frame(packet, FRAME)])))
    await leave(node, *people, opus)
    [segment] = await node.stop("m", 0)
    assert (segment.sample_rate, segment.channels, segment.start_ns) == (48_000, 1, EPOCH_NS)
    starts = {1: 0.0, 2: 1.0, 3: 2.0, 4: 0.5, 5: 2.5}
    for container, loss_db in ((Container.WAV, 0.0), (Container.MP3, 0.45)):
        signal = heard_in(segment, container)
        for handle, hertz in HERTZ.items():
            found = find_tone(signal, hertz, 48_000, threshold_dbfs=-35)
            expected = ToneSpan(starts[handle], starts[handle] + 1, -20 - loss_db)
            assert len(found) == 1, (container, handle, found)
            assert found[0].start == pytest.approx(expected.start, abs=0.04)
            assert found[0].end == pytest.approx(expected.end, abs=0.04)
            assert found[0].dbfs == pytest.approx(expected.dbfs, abs=0.7)


async def test_where_one_talks_the_mix_is_what_they_say(node: RecorderNode) -> None:
    one, other = person(1), person(2)
    begin(node, [one, other], mix())
    first, second = noise(1.0, seed=1), noise(1.0, seed=2)
    speak(node, one, first)
    be_silent(node, other, 1.0)
    be_silent(node, one, 2.5)
    speak(node, other, second)
    await leave(node, one, other)
    [segment] = await node.stop("m", 0)
    signal = heard_in(segment)
    assert np.array_equal(signal[:48_000], first)
    assert np.array_equal(signal[48_000:96_000], second)
    assert len(signal) == 3.5 * 48_000
    assert not signal[96_000:].any()


async def test_a_mix_waits_for_a_slow_publisher(node: RecorderNode) -> None:
    fast, slow = person(1), person(2)
    begin(node, [fast, slow], mix())
    speak(node, fast, tone(440, 2.0, dbfs=-20))
    speak(node, slow, tone(700, 0.2, dbfs=-20))
    await asyncio.sleep(0.8)
    speak(node, slow, tone(700, 1.8, dbfs=-20))
    await leave(node, fast, slow)
    [segment] = await node.stop("m", 0)
    signal = heard_in(segment)
    assert spans(signal, 440) == [(0.0, 2.0)]
    assert spans(signal, 700)[0][0] == 0.0
    assert spans(signal, 700)[-1][1] == 2.0
    assert segment.statistics.rejected == 0


async def test_a_mix_does_not_wait_for_ever_for_a_lost_publisher(node: RecorderNode) -> None:
    here, lost = person(1), person(2)
    begin(node, [here, lost], mix())
    speak(node, here, tone(440, 8.0, dbfs=-20))
    frames = speak(node, lost, tone(700, 1.0, dbfs=-20))
    node.tell(protocol.TrackLost(2, lost.capture_ns()))
    await node.until_safe(1, 300)
    # Back too late: what the mix went on without is missing in it, and told.
    node.tell(protocol.TrackBack(2))
    speak(node, lost, tone(700, 1.0, dbfs=-20))
    await node.until(lambda: bool(node.all(protocol.Gap)), "it is told what is missing")
    await leave(node, here, lost)
    [segment] = await node.stop("m", 0)
    signal = heard_in(segment)
    assert spans(signal, 440) == [(0.0, 8.0)]
    assert spans(signal, 700) == [(0.0, 1.0)]
    [gap] = node.all(protocol.Gap)
    assert (gap.user_id, gap.reason) == ("u2", protocol.GapReason.PUBLISHER_LOST)
    assert (gap.from_ns, gap.to_ns) == (EPOCH_NS + SECOND, EPOCH_NS + 2 * SECOND)
    assert segment.statistics.rejected == 50
    assert segment.statistics.recorded == 400 + len(frames)


async def test_a_worker_that_is_told_to_stop_ends_its_mix_where_all_are_heard(node: RecorderNode) -> None:
    ahead, behind = person(1), person(2)
    begin(node, [ahead, behind], mix())
    speak(node, ahead, tone(440, 1.5, dbfs=-20))
    speak(node, behind, tone(700, 1.0, dbfs=-20))
    await node.until_safe(2, 30)
    node.tell(protocol.Shutdown())
    assert await node.exit_code() == 0
    await node.until(lambda: protocol.Bye() in node.said, "it says bye")
    [segment] = node.completed("m")
    signal = heard_in(segment)
    # Both send again what is not in it; nothing of either may lie where the next segment begins.
    assert 0.5 < len(signal) / 48_000 <= 1.0
    assert spans(signal, 440) == spans(signal, 700) == [(0.0, round(len(signal) / 48_000, 2))]
    assert node.safe[1] <= len(signal) / FRAME
    assert node.safe[2] <= len(signal) / FRAME
    [file] = segment.files
    media = [each for each in Path(file.path).parent.iterdir() if each.suffix != ".journal"]
    assert [each.name for each in media if each.name != "lock"] == [Path(file.path).name]


async def test_a_live_mix_grows_within_a_second(node: RecorderNode) -> None:
    people = [person(1), person(2)]
    begin(node, people, mix(Container.WAV, Container.MP3), RoomClock.ARRIVAL)
    clip = tone(440, 0.1)
    for _ in range(20):
        speak(node, people[0], clip)
        people[1].pause(100 * MS)
        node.write(people[1].message(people[1].batch()))
        await asyncio.sleep(0.1)
    assert node.safe[1] >= 50
    [started] = node.all(protocol.SegmentStarted)
    assert all(Path(file.path).stat().st_size > 4000 for file in started.files)


async def test_all_who_leave_are_told_that_they_are_safe_at_once(node: RecorderNode) -> None:
    one, other = person(1), person(2)
    begin(node, [one, other], mix(Container.MP3))
    speak(node, one, noise(1.0))
    speak(node, other, noise(2.0))
    await leave(node, one, other)
    assert node.completed("m") == []
    # Somebody new goes on in the same segment, if only a moment later.
    third = person(3, 2500 * MS)
    node.tell(third.open(), protocol.RecordingTracks("m", (3,)))
    speak(node, third, noise(1.0))
    await leave(node, third)
    [segment] = await node.stop("m", 0)
    assert segment.sample_count == 3.5 * 48_000
    assert len(heard_in(segment, Container.MP3)) == 3.5 * 48_000


async def test_somebody_who_goes_on_right_there_begins_the_next_segment(node: RecorderNode) -> None:
    one, third = person(1), person(3, SECOND)
    begin(node, [one], mix(Container.MP3, Container.WAV))
    first, second = noise(1.0, seed=1), noise(1.0, seed=2)
    speak(node, one, first)
    await leave(node, one)
    node.tell(third.open(), protocol.RecordingTracks("m", (3,)))
    speak(node, third, second)
    await leave(node, third)
    segments = await node.stop("m", 0)
    assert np.array_equal(join([heard_in(each) for each in segments]), join([first, second]))
    assert [each.start_ns - EPOCH_NS for each in segments] == [0, SECOND]
    assert [len(heard_in(each, Container.MP3)) for each in segments] == [48_000, 48_000]


async def test_a_mix_ends_when_all_are_gone_for_long(node: RecorderNode) -> None:
    one = person(1)
    begin(node, [one], mix(break_wait_ns=300 * MS))
    speak(node, one, noise(1.0))
    await leave(node, one)
    await node.until(lambda: len(node.completed("m")) == 1, "the segment ends")
    again = person(2, 100 * SECOND)
    node.tell(again.open(), protocol.RecordingTracks("m", (2,)))
    speak(node, again, noise(1.0))
    await leave(node, again)
    segments = await node.stop("m", 0)
    times = [((each.start_ns - EPOCH_NS) // SECOND, (each.end_ns - EPOCH_NS) // SECOND) for each in segments]
    assert times == [(0, 1), (100, 101)]


async def test_segments_of_a_mix_join_to_the_sample(node: RecorderNode) -> None:
    one, other = person(1), person(2, 333 * MS)
    begin(node, [one, other], mix(Container.WAV, Container.MP3, segment_ns=700 * MS))
    first, second = noise(2.0, seed=1), noise(2.0, seed=2)
    speak(node, one, first)
    speak(node, other, second)
    await leave(node, one, other)
    segments = await node.stop("m", 0)
    assert [each.sample_count for each in segments][:3] == [33_600] * 3
    expected = np.zeros(48_000 * 7 // 3 - 16, np.int32)
    expected[:96_000] += first
    expected[15_984 : 15_984 + 96_000] += second
    joined = join([heard_in(each) for each in segments])
    assert np.array_equal(joined, expected[: len(joined)])
    assert len(joined) == 15_984 + 96_000
    assert sum(len(heard_in(each, Container.MP3)) for each in segments) == len(joined)
    assert sum(each.statistics.recorded for each in segments) == 200


async def test_a_track_can_be_taken_out_of_a_mix_and_back(node: RecorderNode) -> None:
    one, other = person(1), person(2)
    begin(node, [one, other], mix())
    for second in range(3):
        node.tell(protocol.RecordingTracks("m", (1,) if second == 1 else (1, 2)))
        speak(node, one, tone(440, 1.0, dbfs=-20))
        speak(node, other, tone(700, 1.0, dbfs=-20))
    await leave(node, one, other)
    [segment] = await node.stop("m", 0)
    signal = heard_in(segment)
    assert (spans(signal, 440)[0][0], spans(signal, 440)[-1][1]) == (0.0, 3.0)
    assert spans(signal, 700) == [(0.0, 1.0), (2.0, 3.0)]
    assert segment.statistics.lost == 0


async def test_a_mix_of_loud_voices_does_not_clip(node: RecorderNode) -> None:
    people = [person(handle) for handle in HERTZ]
    begin(node, people, mix())
    for each in people:
        speak(node, each, tone(HERTZ[each.handle], 1.0, dbfs=-2))
    await leave(node, *people)
    [segment] = await node.stop("m", 0)
    signal = heard_in(segment)
    assert np.count_nonzero(np.abs(signal.astype(np.int32)) >= 32767) < 100
    for hertz in HERTZ.values():
        assert spans(signal, hertz)


async def test_twenty_five_in_a_room_are_in_the_mix(node: RecorderNode) -> None:
    people = [person(handle, handle * 40 * MS) for handle in range(1, 26)]
    begin(node, people, mix())
    for each in people:
        speak(node, each, tone(300 + 200 * each.handle, 0.5, dbfs=-30))
    await leave(node, *people)
    [segment] = await node.stop("m", 0)
    signal = heard_in(segment)
    for each in people:
        [found] = find_tone(signal, 300 + 200 * each.handle, 48_000, threshold_dbfs=-42)
        assert found.start == pytest.approx(each.handle * 0.04 - 0.04, abs=0.04)
        assert found.dbfs == pytest.approx(-30, abs=1.5)


async def test_a_mix_remembers_those_who_passed_by_last(node: RecorderNode) -> None:
    node.tell(protocol.RoomOpen(1, RoomClock.MEDIA, EPOCH_NS), order("r", kind=RecordingKind.MIXED))
    passing = REMEMBERED_TRACKS + 50
    for number in range(passing):
        start_ns = EPOCH_NS + number * 40 * MS
        publisher = Publisher(10 + number, rate=8_000, key=f"{number}/mic", start_ns=start_ns)
        node.tell(publisher.open(), protocol.RecordingTracks("r", (publisher.handle,)))
        frames = [publisher.frame(bytes(320), 160)]
        node.write(publisher.message(publisher.batch(frames)))
        node.tell(protocol.TrackClose(publisher.handle, publisher.capture_ns()))
    await node.until_safe(10 + passing - 1, 1)
    [segment] = await node.stop("r", EPOCH_NS + passing * 40 * MS)
    assert len(segment.resume) == REMEMBERED_TRACKS
    assert f"{passing - 1}/mic" in segment.resume
    assert segment.statistics.recorded == passing


@pytest.mark.parametrize("behind_ms", [104, 60_000])
async def test_a_mix_that_goes_on_loses_nothing_to_a_clock_that_is_behind(
    node: RecorderNode, behind_ms: int
) -> None:
    """What is behind by more than clocks may be was waited for, and is too late."""
    publisher = Publisher(1, start_ns=EPOCH_NS + 100 * SECOND)
    ended_ns = publisher.start_ns + behind_ms * MS
    started = order("m", kind=RecordingKind.MIXED, next_segment=1, position_ns=ended_ns)
    node.tell(protocol.RoomOpen(1, RoomClock.ARRIVAL, EPOCH_NS), publisher.open())
    node.tell(started, protocol.RecordingTracks("m", (1,)))
    signal = noise(1.0, peak=3000)
    for at in range(0, len(signal), 5 * FRAME):
        pcm = signal[at : at + 5 * FRAME]
        frames = [publisher.frame(pcm[i : i + FRAME].tobytes(), FRAME) for i in range(0, len(pcm), FRAME)]
        node.write(publisher.message(publisher.batch(frames)))
    node.tell(protocol.TrackClose(1, publisher.capture_ns()))
    segments = await node.stop("m", publisher.capture_ns())
    if behind_ms > 1000:
        assert segments == []
        return
    [segment] = segments
    assert segment.start_ns == ended_ns
    assert np.array_equal(ffmpeg_decode(segment.files[0].path), signal)
