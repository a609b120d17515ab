"""Frames lie where they belong: contiguous to the sample while somebody speaks, by the room's clock after a pause."""

import random

import pytest

from roomtape.v1 import ingest_pb2
from roomtape_service.recording.mapping import RoomMapping
from roomtape_service.recording.protocol import RoomClock
from roomtape_service.recording.timeline import FrameTimeError, TrackTimeline
from tests.support.recorder import EPOCH_NS, MS, SECOND, Publisher

RATE = 48_000
FRAME = 960
HOUR = 3600 * SECOND


def timeline(clock: RoomClock = RoomClock.MEDIA, **options: int) -> TrackTimeline:
    return TrackTimeline(RATE, clock, EPOCH_NS, **options)


def place(line: TrackTimeline, batch: ingest_pb2.FrameBatch, arrival_ns: int = 0) -> list[int]:
    """Positions of a batch's frames."""
    line.push(batch, arrival_ns)
    return [line.place(frame, FRAME, lost) for frame, lost in line.take()]


def frames(publisher: Publisher, count: int) -> list[ingest_pb2.Frame]:
    return [publisher.frame(b"x", FRAME) for _ in range(count)]


def test_frames_follow_each_other_to_the_sample() -> None:
    publisher, line = Publisher(1), timeline()
    positions = [at for _ in range(20) for at in place(line, publisher.batch(frames(publisher, 5)))]
    assert positions == [index * FRAME for index in range(100)]


def test_microseconds_of_rounding_do_not_move_a_sample() -> None:
    publisher, line = Publisher(1, rate=44_100), TrackTimeline(44_100, RoomClock.MEDIA, EPOCH_NS)
    positions: list[int] = []
    for index in range(1000):
        publisher.media_ns = round(index * 1024 * 1_000_000 / 44_100) * 1000
        line.push(publisher.batch([publisher.frame(b"x", 1024)]), 0)
        positions += [line.place(frame, 1024, lost) for frame, lost in line.take()]
    assert positions == [index * 1024 for index in range(1000)]


@pytest.mark.parametrize("pause_ms", [20, 380, 1500, 20_000])
def test_a_pause_is_as_long_as_it_was(pause_ms: int) -> None:
    publisher, line = Publisher(1), timeline()
    place(line, publisher.batch(frames(publisher, 5)))
    publisher.pause(pause_ms * MS)
    assert place(line, publisher.batch(frames(publisher, 1))) == [5 * FRAME + pause_ms * 48]


def test_a_loss_leaves_its_place_empty() -> None:
    publisher, line = Publisher(1), timeline(next_sequence=1)
    sent = frames(publisher, 20)
    line.push(publisher.batch([*sent[:5], *sent[7:]]), 0)
    line.release(SECOND)
    placed = [(line.place(frame, FRAME, lost), lost) for frame, lost in line.take()]
    assert placed[4:6] == [(4 * FRAME, 0), (7 * FRAME, 2)]
    assert placed[-1] == (19 * FRAME, 0)


def test_a_gap_goes_on_where_it_was_resumed() -> None:
    publisher = Publisher(1, start_ns=EPOCH_NS + 123_456_789)
    publisher.sequence, publisher.media_ns = 500, 10 * SECOND
    line = timeline(offset_ns=EPOCH_NS + 7 * SECOND, next_sequence=501)
    assert place(line, publisher.batch(frames(publisher, 2)))[0] == 17 * RATE


def test_silence_is_known_up_to_what_was_sent() -> None:
    publisher, line = Publisher(1), timeline()
    place(line, publisher.batch(frames(publisher, 5)))
    assert line.frontier() == 5 * FRAME
    publisher.pause(2 * SECOND)
    line.push(publisher.batch(), 0)
    known = line.frontier()
    assert known is not None
    # Not to the last moment: a frame may be on its way that began before.
    assert 1.5 * RATE < known - 5 * FRAME < 2 * RATE
    assert line.watermark() == 5 * FRAME + 2 * RATE


def test_a_publisher_who_says_too_much_is_not_cut_short() -> None:
    publisher, line = Publisher(1), timeline()
    place(line, publisher.batch(frames(publisher, 5)))
    batch = publisher.batch()
    batch.sent_time.FromNanoseconds(publisher.capture_ns() + 700 * MS)
    line.push(batch, 0)
    claimed = line.frontier()
    assert place(line, publisher.batch(frames(publisher, 1))) == [claimed]


@pytest.mark.parametrize(
    ("media_ns", "capture_ns"),
    [(-MS, 0), (-SECOND, -SECOND), (0, -1001 * MS), (25 * HOUR, 0), (0, 25 * HOUR), (25 * HOUR, 25 * HOUR)],
)
def test_times_that_can_not_be_are_refused_and_change_nothing(media_ns: int, capture_ns: int) -> None:
    publisher, line = Publisher(1), timeline()
    place(line, publisher.batch(frames(publisher, 5)))
    [bad] = frames(publisher, 1)
    bad.media_time.FromNanoseconds(4 * 20 * MS + media_ns)
    bad.capture_time.FromNanoseconds(EPOCH_NS + 4 * 20 * MS + capture_ns)
    line.push(publisher.batch([bad]), 0)
    [(frame, lost)] = line.take()
    with pytest.raises(FrameTimeError):
        line.place(frame, FRAME, lost)
    assert place(line, publisher.batch(frames(publisher, 1))) == [6 * FRAME]


def test_a_first_frame_from_another_day_is_refused() -> None:
    publisher, line = Publisher(1), timeline()
    batch = publisher.batch(frames(publisher, 1))
    batch.frames[0].capture_time.FromNanoseconds(0)
    line.push(batch, 0)
    [(frame, lost)] = line.take()
    with pytest.raises(FrameTimeError):
        line.place(frame, FRAME, lost)


def test_a_sample_clock_that_stood_still_is_seen_by_capture_time() -> None:
    publisher, line = Publisher(1), timeline()
    place(line, publisher.batch(frames(publisher, 5)))
    publisher.start_ns += 10 * SECOND
    assert place(line, publisher.batch(frames(publisher, 1))) == [5 * FRAME + 10 * RATE]


@pytest.mark.parametrize("drift_ppm", [100, -100])
@pytest.mark.parametrize("clock", list(RoomClock))
def test_drift_is_made_good_in_pauses(clock: RoomClock, drift_ppm: int) -> None:
    """45 minutes of talk and silence, stamps late by up to some milliseconds, batches late by more."""
    randomness = random.Random(drift_ppm)
    publisher = Publisher(
        1, drift_ppm=drift_ppm, capture_offset_ns=3 * HOUR if clock is RoomClock.ARRIVAL else 0
    )
    line = timeline(clock)
    worst, last = 0.0, 0.0
    delay_ns = 30 * MS
    while publisher.media_ns < 45 * 60 * SECOND:
        for _ in range(randomness.randint(5, 50)):
            truths = []
            sent = []
            for _ in range(5):
                truths.append(publisher.capture_ns() - publisher.capture_offset_ns - EPOCH_NS)
                frame = publisher.frame(b"x", FRAME)
                late_ns = round(randomness.expovariate(1 / (0.1 * MS)))
                frame.capture_time.FromNanoseconds(frame.capture_time.ToNanoseconds() + late_ns)
                sent.append(frame)
            arrival_ns = publisher.capture_ns() - publisher.capture_offset_ns + delay_ns
            arrival_ns += round(randomness.expovariate(1 / (15 * MS)))
            positions = place(line, publisher.batch(sent), arrival_ns)
            base_ns = delay_ns if clock is RoomClock.ARRIVAL else 0
            last = positions[-1] / RATE * 1000 - (truths[-1] + base_ns) / MS
            if publisher.media_ns > 20 * SECOND:
                worst = max(worst, abs(last))
        publisher.log.clear()
        for _ in range(randomness.randint(1, 40)):
            publisher.pause(400 * MS)
            arrival_ns = publisher.capture_ns() - publisher.capture_offset_ns + delay_ns
            line.push(publisher.batch(), arrival_ns + round(randomness.expovariate(1 / (15 * MS))))
            line.frontier()
    # Arrivals jitter by 15 ms in the mean; in pauses there are few of them.
    assert abs(last) < (1 if clock is RoomClock.MEDIA else 4)
    assert worst < (1 if clock is RoomClock.MEDIA else 8)


def test_the_smallest_delay_counts_and_changes_slowly() -> None:
    mapping = RoomMapping(RoomClock.ARRIVAL, None)
    offset_ns = 0
    for second in range(20):
        late_ns = 40 * MS if second < 10 else 20 * MS
        sent_ns = second * SECOND
        mapping.observe_sending(sent_ns, sent_ns + late_ns)
        mapping.observe_capture(sent_ns, sent_ns)
        offset_ns = mapping.offset_ns(sent_ns + late_ns)
        if second < 10:
            assert offset_ns == 40 * MS
    # 20 ms at 5 ms a second.
    assert offset_ns == 20 * MS
    assert mapping.delay_ns == 20 * MS


def test_late_batches_after_an_outage_do_not_move_the_mapping() -> None:
    mapping = RoomMapping(RoomClock.ARRIVAL, None)
    for tick in range(100):
        mapping.observe_sending(tick * 100 * MS, tick * 100 * MS + 5 * MS)
        mapping.observe_capture(tick * 100 * MS, tick * 100 * MS)
    for tick in range(100, 120):
        mapping.observe_sending(tick * 100 * MS, 30 * SECOND + tick * MS)
        mapping.observe_capture(tick * 100 * MS, tick * 100 * MS)
    assert abs(mapping.offset_ns(30 * SECOND) - 5 * MS) < MS


def test_a_publisher_who_sets_the_clock_stays_where_they_are() -> None:
    for step_ns in (-700 * MS, 5 * SECOND):
        mapping = RoomMapping(RoomClock.ARRIVAL, None)
        for tick in range(200):
            now_ns = tick * 100 * MS
            theirs_ns = now_ns + (step_ns if tick >= 100 else 0)
            mapping.observe_sending(theirs_ns, now_ns + 5 * MS)
            mapping.observe_capture(now_ns, theirs_ns)
            assert abs(mapping.offset_ns(now_ns) - 5 * MS) < MS, tick
