"""Frames that are taken as one run lie, and are kept, exactly as those that are taken one by one."""

from collections.abc import Sequence

from hypothesis import assume, given
from hypothesis import strategies as st

from roomtape.v1 import ingest_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.recording.delivery import Run
from roomtape_service.recording.marks import Mark
from roomtape_service.recording.protocol import RoomClock
from roomtape_service.recording.reorder import Reorder, TrackFrame
from roomtape_service.recording.timeline import FrameTimeError, TrackTimeline

EPOCH_NS = 1_700_000_000 * NANOSECONDS
FRAME_NS = NANOSECONDS // 50
SIZE = 960

# How media time goes on after a frame, and how late the stamp of capture is: mostly as it should be.
_STEPS_NS = st.sampled_from([FRAME_NS] * 12 + [FRAME_NS + 1_000_000, 3 * FRAME_NS, NANOSECONDS, 0, -FRAME_NS])
_LATE_NS = st.sampled_from([0] * 6 + [300_000, 5_000_000, 90_000_000, 250_000_000, 1_500_000_000])


@st.composite
def _frames(draw: st.DrawFn) -> list[TrackFrame]:
    media_ns = 0
    frames = []
    for sequence in range(1, draw(st.integers(1, 60)) + 1):
        frames.append(TrackFrame(sequence, media_ns, EPOCH_NS + media_ns + draw(_LATE_NS), b"packet"))
        media_ns = max(0, media_ns + draw(_STEPS_NS))
    return frames


def _timeline() -> TrackTimeline:
    timeline = TrackTimeline(48_000, RoomClock.ARRIVAL, EPOCH_NS)
    batch = ingest_pb2.FrameBatch()
    batch.sent_time.FromNanoseconds(EPOCH_NS)
    timeline.push(batch, EPOCH_NS + 2_000_000)
    return timeline


def _one_by_one(timeline: TrackTimeline, frames: Sequence[TrackFrame]) -> list[int]:
    positions = []
    for frame in frames:
        try:
            positions.append(timeline.place(frame, SIZE, 0))
        except FrameTimeError:
            break
    return positions


@given(_frames(), st.integers(1, 20))
def test_runs_lie_where_their_frames_do(frames: list[TrackFrame], block: int) -> None:
    alone, together = _timeline(), _timeline()
    for start in range(0, len(frames), block):
        those = frames[start : start + block]
        expected = _one_by_one(alone, those)
        runs = together.place_all(those, SIZE)
        assert [at + SIZE * each for at, count in runs for each in range(count)] == expected
        assert together.position == alone.position
        assert together.end_media_ns == alone.end_media_ns
        assert together.error_samples() == alone.error_samples()
        if len(expected) < len(those):
            break


@given(st.lists(st.integers(1, 30), max_size=30), st.integers(0, 5))
def test_what_follows_is_handed_out_as_if_it_came_alone(sequences: list[int], first: int) -> None:
    frames = [TrackFrame(sequence, sequence * FRAME_NS, 0, b"") for sequence in sequences]
    alone, together = Reorder(first or None), Reorder(first or None)
    expected = [each for frame in frames for each in alone.push(frame, 0)]
    count = together.follow(frames)
    got = [(frame, 0) for frame in frames[:count]]
    got += [each for frame in frames[count:] for each in together.push(frame, 0)]
    assert got == expected
    assert vars(together) == vars(alone)


@given(st.integers(1, 40), st.integers(0, 45 * SIZE))
def test_a_mark_is_split_between_its_frames(count: int, cut: int) -> None:
    start = 123
    ends_ns = [index * FRAME_NS for index in range(1, count + 1)]
    run = Run(7, start, SIZE, [b""] * count, b"", ends_ns)
    *earlier, last_ns = ends_ns
    mark = Mark(
        start + count * SIZE, 0, "key", run.last_sequence, start + count * SIZE, 48_000, last_ns, count
    )
    mark = mark._replace(earlier=earlier, size=SIZE)
    position = start + cut
    done = cut // SIZE
    assume(0 < done < count)
    assert mark.first_end <= position
    assert mark.last_end(position) == start + done * SIZE
    head, tail = mark.split(position)
    assert (head.end, head.track_end) == (start + done * SIZE,) * 2
    assert (head.sequence, head.recorded, head.end_media_ns) == (6 + done, done, done * FRAME_NS)
    assert list(head.earlier) == ends_ns[: done - 1]
    assert (tail.end, tail.sequence, tail.recorded) == (mark.end, mark.sequence, count - done)
    assert list(tail.earlier) == ends_ns[done:-1]
    assert tail.first_end == start + (done + 1) * SIZE


def test_a_run_is_made_of_its_frames() -> None:
    run = Run(3, 100, 2, [b"a", b"b"], b"00112233", [5, 6])
    first, second = run.pieces()
    assert (first.sequence, first.position, first.samples, first.packet, first.pcm) == (
        3,
        100,
        2,
        b"a",
        b"0011",
    )
    assert (second.sequence, second.position, second.pcm, second.end_media_ns) == (4, 102, b"2233", 6)
    assert run.samples == 4
