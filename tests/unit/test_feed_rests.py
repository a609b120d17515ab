"""Recordings whose users left: the worker forgets them, the feed remembers what it takes to go on."""

import pytest

from roomtape_service.recording import protocol
from roomtape_service.recording.front.feed import RoomFeed
from roomtape_service.recording.front.track import FeedTrack
from roomtape_service.recording.remembering import REMEMBERED_TRACKS
from tests.support.feeds import NOW, FeedWorker, feed, index, recording, track

__all__ = ["feed", "index"]


def test_a_recording_remembers_those_of_its_passers_by_who_left_last(feed: RoomFeed) -> None:
    worker, each = FeedWorker(), recording(kind=protocol.RecordingKind.MIXED)
    feed.start_recording(each)
    feed.attach(worker)
    stays = track(feed, "stays")
    for number in range(3 * REMEMBERED_TRACKS):
        passing = track(feed, f"{number}")
        feed.set_tracks("r1", [stays.facts.key, passing.facts.key])
        feed.push(passing, 5, NOW, b"hello")
        feed.close_track(passing, NOW)
        feed.safe(passing, 5)
        resume = {stays.facts.key: protocol.Resume(number, NOW), passing.facts.key: protocol.Resume(5, NOW)}
        each.continue_after(number, NOW + number, resume)
        worker.take()
    assert list(feed.tracks) == [stays.facts.key]
    assert len(each.base) <= 1
    feed.attach(worker)
    [start] = [told for told in worker.take() if isinstance(told, protocol.RecordingStart)]
    assert len(start.resume) == REMEMBERED_TRACKS
    assert start.resume[stays.facts.key].sequence == 3 * REMEMBERED_TRACKS - 1
    assert f"s1/{3 * REMEMBERED_TRACKS - 1}" in start.resume


def pass_by(feed: RoomFeed, name: str, segment: int = 0) -> FeedTrack:
    """A user's track comes, is recorded as the segment, and goes."""
    mic = track(feed, name)
    feed.set_tracks("r1", [mic.facts.key])
    feed.push(mic, 5, NOW, b"hello")
    each = feed.recordings["r1"]
    each.next_segment = segment + 1
    feed.close_track(mic, NOW)
    feed.set_tracks("r1", [])
    feed.safe(mic, 5)
    assert each.is_running
    each.continue_after(segment, NOW, {mic.facts.key: protocol.Resume(5, NOW)})
    feed.rest_if_idle(each)
    return mic


def test_a_worker_forgets_who_left_and_knows_who_comes_back(feed: RoomFeed) -> None:
    worker = FeedWorker()
    feed.start_recording(recording())
    feed.attach(worker)
    gone = pass_by(feed, "first")
    told = worker.take()
    assert told[-1] == protocol.RecordingStop("r1", protocol.BEFORE_ALL_NS)
    assert not feed.recording_stopped("r1")
    assert list(feed.recordings) == ["r1"]
    again = track(feed, "second")
    feed.set_tracks("r1", [again.facts.key])
    feed.push(again, 5, NOW, b"again")
    start, opened, tracks, frames = worker.take()
    assert isinstance(start, protocol.RecordingStart)
    assert (start.next_segment, start.position_ns, start.ended_ns) == (1, None, NOW)
    assert start.resume == {gone.facts.key: protocol.Resume(5, NOW)}
    assert isinstance(opened, protocol.TrackOpen)
    assert tracks == protocol.RecordingTracks("r1", (again.handle,))
    assert isinstance(frames, protocol.Frames)


def test_who_comes_back_at_once_is_not_stopped_by_the_rest(feed: RoomFeed) -> None:
    worker = FeedWorker()
    feed.start_recording(recording())
    feed.attach(worker)
    pass_by(feed, "first")
    again = track(feed, "second")
    feed.set_tracks("r1", [again.facts.key])
    assert not feed.recording_stopped("r1")
    assert feed.recordings["r1"].is_running
    feed.stop_recording("r1", NOW)
    feed.recording_stopped("r1")
    assert feed.recordings == {}


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_recording_that_rests_is_stopped_like_any_other(feed: RoomFeed, is_lost: bool) -> None:
    worker, other = FeedWorker(), FeedWorker()
    feed.start_recording(recording())
    feed.attach(worker)
    pass_by(feed, "first")
    if is_lost:
        feed.detach()
        feed.attach(other)
        assert [type(each) for each in other.take()] == [protocol.RoomOpen]
        worker = other
    else:
        feed.recording_stopped("r1")
    worker.take()
    feed.stop_recording("r1", NOW + 1)
    kinds = [type(each) for each in worker.take()]
    assert kinds == [protocol.RecordingStart, protocol.RecordingStop]
    feed.recording_stopped("r1")
    assert feed.recordings == {}


def test_a_stop_does_not_take_the_end_of_a_segment_for_the_end_of_the_recording(feed: RoomFeed) -> None:
    worker, mic = FeedWorker(), track(feed)
    feed.start_recording(recording())
    feed.attach(worker)
    feed.set_tracks("r1", [mic.facts.key])
    feed.push(mic, 5, NOW, b"one")
    feed.restart(protocol.SpoolTrouble.FULL)
    feed.push(mic, 10, NOW, b"two")
    feed.stop_recording("r1", NOW + 10**9)
    assert feed.recording_stopped("r1")
    assert mic.acknowledged == 0
    worker.take()
    feed.resume_parked()
    messages = worker.take()
    assert [each.batch for each in messages if isinstance(each, protocol.Frames)] == [b"one", b"two"]
    assert messages[-1] == protocol.RecordingStop("r1", NOW + 10**9)
    feed.recording_stopped("r1")
    assert not feed.recordings
    assert mic.acknowledged == 10
