"""Frames come back into order, and everything out of order is counted exactly."""

from hypothesis import given
from hypothesis import strategies as st

from roomtape_service.recording.reorder import HOLD_NS, Reorder, TrackFrame

FRAME_NS = 20_000_000


def frame(sequence: int) -> TrackFrame:
    return TrackFrame(sequence, sequence * FRAME_NS, sequence * FRAME_NS, b"x")


def push(reorder: Reorder, sequences: list[int], now_ns: int = 0) -> list[tuple[int, int]]:
    return [(item.sequence, lost) for each in sequences for item, lost in reorder.push(frame(each), now_ns)]


def test_in_order_passes_at_once() -> None:
    reorder = Reorder(1)
    assert push(reorder, [1, 2, 3]) == [(1, 0), (2, 0), (3, 0)]
    assert (reorder.duplicated, reorder.reordered, reorder.late) == (0, 0, 0)


def test_a_late_frame_is_put_in_its_place() -> None:
    reorder = Reorder(1)
    assert push(reorder, [1, 3, 4, 2, 5]) == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0)]
    assert reorder.reordered == 1


def test_a_missing_frame_is_given_up_by_time() -> None:
    reorder = Reorder(1)
    assert push(reorder, [1, 3]) == [(1, 0)]
    assert list(reorder.release(HOLD_NS - 1)) == []
    assert [(item.sequence, lost) for item, lost in reorder.release(HOLD_NS)] == [(3, 1)]


def test_a_missing_frame_is_given_up_by_media_time() -> None:
    reorder = Reorder(1)
    last = 3 + HOLD_NS // FRAME_NS
    released = push(reorder, [1, *range(3, last + 1)])
    assert released == [(1, 0), (3, 1), *((each, 0) for each in range(4, last + 1))]


def test_what_comes_after_it_was_given_up_is_late_and_not_a_duplicate() -> None:
    reorder = Reorder(1)
    push(reorder, [1, 3])
    list(reorder.release(HOLD_NS))
    assert push(reorder, [2, 2, 3]) == []
    assert (reorder.late, reorder.duplicated) == (1, 2)


def test_without_a_start_the_first_frame_is_the_first() -> None:
    reorder = Reorder(None)
    assert push(reorder, [77, 78]) == [(77, 0), (78, 0)]


def test_frames_before_the_start_are_duplicates() -> None:
    reorder = Reorder(10)
    assert push(reorder, [8, 9, 10]) == [(10, 0)]
    assert reorder.duplicated == 2


@given(st.data())
def test_every_frame_comes_out_once_and_in_order(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 60))
    lost = data.draw(st.sets(st.integers(1, count)))
    sent = [each for each in range(1, count + 1) if each not in lost]
    twice = data.draw(st.lists(st.sampled_from(sent), max_size=5)) if sent else []
    # Each is moved by at most three places, well within what is waited for.
    keyed = [(each + data.draw(st.integers(0, 3)), each) for each in sent]
    order = [each for _, each in sorted(keyed)]
    reorder = Reorder(1)
    released = push(reorder, [*order, *twice])
    released += [(item.sequence, gap) for item, gap in reorder.release(0, everything=True)]
    assert [each for each, _ in released] == sent
    newest = max(sent, default=0)
    assert sum(gap for _, gap in released) == len([each for each in lost if each < newest])
    assert reorder.duplicated == len(twice)
    assert reorder.late == 0
    assert reorder.reordered == sum(
        1 for index, each in enumerate(order) if each < max(order[:index], default=0)
    )
