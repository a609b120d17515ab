"""What a room's feed tells its worker, and what it holds until it is safe."""

import pytest

from roomtape_service.recording import protocol
from roomtape_service.recording.front.feed import RoomFeed, TrackIndex
from tests.support.feeds import NOW, FeedWorker, feed, index, recording, track

__all__ = ["feed", "index"]


def test_frames_that_nobody_records_are_safe_at_once(feed: RoomFeed) -> None:
    mic = track(feed)
    feed.push(mic, 5, NOW, b"batch")
    assert mic.acknowledged == 5
    assert not mic.held


def test_recorded_frames_are_held_until_the_worker_says_that_they_are_safe(feed: RoomFeed) -> None:
    worker, mic = FeedWorker(), track(feed)
    feed.start_recording(recording())
    feed.attach(worker)
    feed.set_tracks("r1", [mic.facts.key])
    worker.take()
    feed.push(mic, 5, NOW, b"one")
    feed.push(mic, 10, NOW, b"two")
    assert worker.frames() == [b"one", b"two"]
    assert mic.acknowledged == 0
    feed.safe(mic, 5)
    assert mic.acknowledged == 5
    assert [held.batch for held in mic.held] == [b"two"]


def test_another_worker_gets_everything_that_is_not_safe(feed: RoomFeed) -> None:
    first, second, mic = FeedWorker(), FeedWorker(), track(feed)
    feed.start_recording(recording())
    feed.attach(first)
    feed.set_tracks("r1", [mic.facts.key])
    for sequence, batch in ((5, b"one"), (10, b"two"), (15, b"three")):
        feed.push(mic, sequence, NOW, batch)
    feed.safe(mic, 5)
    feed.detach()
    feed.push(mic, 20, NOW, b"four")
    feed.recordings["r1"].continue_after(0, NOW + 10**9, {mic.facts.key: protocol.Resume(5, NOW)})
    feed.attach(second)
    messages = second.take()
    kinds = [type(each) for each in messages]
    assert kinds.index(protocol.RecordingTracks) < kinds.index(protocol.Frames)
    start = next(each for each in messages if isinstance(each, protocol.RecordingStart))
    assert start.next_segment == 1
    assert start.resume == {mic.facts.key: protocol.Resume(5, NOW)}
    assert [each.batch for each in messages if isinstance(each, protocol.Frames)] == [
        b"two",
        b"three",
        b"four",
    ]


def test_a_track_that_left_is_written_to_its_end_by_the_next_worker(
    feed: RoomFeed, index: TrackIndex
) -> None:
    first, second, mic = FeedWorker(), FeedWorker(), track(feed)
    feed.start_recording(recording())
    feed.attach(first)
    feed.set_tracks("r1", [mic.facts.key])
    feed.push(mic, 5, NOW, b"one")
    feed.close_track(mic, NOW + 10**9)
    feed.set_tracks("r1", [])
    feed.detach()
    feed.attach(second)
    kinds = [type(each) for each in second.take()]
    assert kinds.index(protocol.Frames) < kinds.index(protocol.TrackClose)
    feed.safe(mic, 5)
    assert feed.tracks == {}
    assert index == {}
    assert feed.recordings["r1"].tracks == ()


def test_a_track_out_of_scope_is_acknowledged_when_the_last_of_it_is_written(feed: RoomFeed) -> None:
    worker, mic = FeedWorker(), track(feed)
    feed.start_recording(recording())
    feed.attach(worker)
    feed.set_tracks("r1", [mic.facts.key])
    feed.push(mic, 5, NOW, b"one")
    feed.set_tracks("r1", [])
    feed.push(mic, 10, NOW, b"after")
    assert mic.acknowledged == 0
    feed.safe(mic, 10)
    assert mic.acknowledged == 10
    assert mic.recordings == set()
    feed.push(mic, 15, NOW, b"nobody")
    assert mic.acknowledged == 15


def test_a_stopped_recording_lets_go_of_what_is_held(feed: RoomFeed) -> None:
    worker, mic = FeedWorker(), track(feed)
    feed.start_recording(recording())
    feed.attach(worker)
    feed.set_tracks("r1", [mic.facts.key])
    feed.push(mic, 5, NOW, b"one")
    feed.stop_recording("r1", NOW)
    assert mic.acknowledged == 0
    feed.recording_stopped("r1")
    assert mic.acknowledged == 5
    assert feed.recordings == {}


def test_a_failed_recording_keeps_frames_from_being_acknowledged(feed: RoomFeed) -> None:
    worker, mic = FeedWorker(), track(feed)
    for name in ("r1", "r2"):
        feed.start_recording(recording(name))
    feed.attach(worker)
    for name in ("r1", "r2"):
        feed.set_tracks(name, [mic.facts.key])
    feed.push(mic, 5, NOW, b"one")
    feed.push(mic, 10, NOW, b"two")
    feed.recordings["r1"].continue_after(0, NOW, {mic.facts.key: protocol.Resume(5, NOW)})
    feed.recording_failed("r1")
    assert not feed.restart()
    feed.safe(mic, 10)
    assert mic.acknowledged == 5
    feed.push(mic, 15, NOW, b"three")
    assert feed.recording_stopped("r2")
    worker.take()
    feed.resume_parked()
    messages = worker.take()
    assert {type(each) for each in messages[:2]} == {protocol.TrackClose, protocol.RoomClose}
    assert [each.batch for each in messages if isinstance(each, protocol.Frames)] == [b"two", b"three"]
    assert all(each.is_running for each in feed.recordings.values())


def test_a_room_goes_on_when_the_last_of_its_recordings_has_failed(feed: RoomFeed) -> None:
    worker, mic = FeedWorker(), track(feed)
    for name in ("r1", "r2"):
        feed.start_recording(recording(name))
    feed.attach(worker)
    for name in ("r1", "r2"):
        feed.set_tracks(name, [mic.facts.key])
    feed.recording_failed("r1")
    assert not feed.restart()
    feed.recording_failed("r2")
    assert feed.restart()
    feed.resume_parked()
    assert all(each.is_running for each in feed.recordings.values())


def test_a_single_gets_the_track_that_left_before_the_one_that_came(feed: RoomFeed) -> None:
    first, second, old, new = FeedWorker(), FeedWorker(), track(feed, "old"), track(feed, "new")
    feed.start_recording(recording())
    feed.attach(first)
    feed.set_tracks("r1", [old.facts.key])
    feed.push(old, 5, NOW, b"old")
    feed.close_track(old, NOW + 10**9)
    feed.set_tracks("r1", [new.facts.key])
    feed.push(new, 5, NOW, b"new")
    feed.detach()
    feed.attach(second)
    told: list[object] = []
    for each in second.take():
        match each:
            case protocol.RecordingTracks():
                told.append(each.tracks[0])
            case protocol.Frames():
                told.append(each.batch)
            case protocol.TrackClose():
                told.append("close")
    assert told.index("close") < told.index(new.handle)
    assert [each for each in told if each != "close"] == [old.handle, b"old", new.handle, b"new"]


def test_what_comes_after_a_stop_is_not_in_the_recording(feed: RoomFeed) -> None:
    first, second, mic = FeedWorker(), FeedWorker(), track(feed)
    feed.start_recording(recording())
    feed.attach(first)
    feed.set_tracks("r1", [mic.facts.key])
    feed.push(mic, 5, NOW, b"before")
    feed.detach()
    feed.stop_recording("r1", NOW)
    feed.push(mic, 10, NOW, b"after")
    feed.attach(second)
    messages = second.take()
    kinds = [type(each) for each in messages]
    before = messages[: kinds.index(protocol.RecordingStop)]
    assert [each.batch for each in before if isinstance(each, protocol.Frames)] == [b"before"]
    feed.recording_stopped("r1")
    assert mic.acknowledged == 10
    assert feed.recordings == {}


def test_a_track_that_comes_again_and_is_taken_no_more_is_let_go(feed: RoomFeed) -> None:
    worker, mic = FeedWorker(), track(feed)
    feed.start_recording(recording())
    feed.attach(worker)
    feed.set_tracks("r1", [mic.facts.key])
    feed.push(mic, 5, NOW, b"one")
    feed.close_track(mic, NOW)
    feed.set_tracks("r1", [])
    assert track(feed) is mic
    feed.set_tracks("r1", [])
    feed.push(mic, 10, NOW, b"two")
    feed.safe(mic, 5)
    assert mic.acknowledged == 10
    assert mic.recordings == set()


def test_a_track_that_comes_again_goes_on_after_what_the_worker_was_sent(feed: RoomFeed) -> None:
    worker, mic = FeedWorker(), track(feed)
    feed.start_recording(recording())
    feed.attach(worker)
    feed.set_tracks("r1", [mic.facts.key])
    feed.push(mic, 5, NOW, b"one")
    feed.close_track(mic, NOW)
    feed.set_tracks("r1", [])
    worker.take()
    track(feed)
    feed.set_tracks("r1", [mic.facts.key])
    opened = [each for each in worker.take() if isinstance(each, protocol.TrackOpen)]
    assert [each.sequence for each in opened] == [5]


def test_an_older_segment_that_is_found_late_moves_nothing_back() -> None:
    each = recording()
    each.continue_after(3, NOW + 3, {"a": protocol.Resume(30, NOW)})
    each.continue_after(1, NOW + 1, {"a": protocol.Resume(10, NOW)})
    assert (each.next_segment, each.position_ns) == (4, NOW + 3)
    assert each.resume["a"].sequence == 30


def test_a_room_is_attached_again_only_when_nothing_of_it_runs(feed: RoomFeed) -> None:
    worker = FeedWorker()
    for name in ("r1", "r2"):
        feed.start_recording(recording(name, protocol.RecordingKind.MIXED))
    feed.attach(worker)
    feed.recording_failed("r1")
    assert not feed.restart()
    worker.take()
    feed.resume_parked()
    assert worker.take() == []
    assert feed.recording_stopped("r2")
    feed.resume_parked()
    assert all(each.is_running for each in feed.recordings.values())


def test_a_worker_knows_where_it_stands_with_those_who_left(feed: RoomFeed) -> None:
    worker, each = FeedWorker(), recording(kind=protocol.RecordingKind.MIXED)
    each.continue_after(0, NOW, {"gone": protocol.Resume(30, NOW)})
    feed.start_recording(each)
    feed.attach(worker)
    start = next(told for told in worker.take() if isinstance(told, protocol.RecordingStart))
    assert start.resume == {"gone": protocol.Resume(30, NOW)}


@pytest.mark.parametrize("is_told", [True, False], ids=["told to the worker that is lost", "told to nobody"])
def test_a_mute_keeps_its_place_between_frames_that_are_sent_again(feed: RoomFeed, is_told: bool) -> None:
    first, second, mic = FeedWorker(), FeedWorker(), track(feed)
    feed.start_recording(recording())
    feed.attach(first)
    feed.set_tracks("r1", [mic.facts.key])
    feed.push(mic, 5, NOW, b"before")
    if not is_told:
        feed.detach()
    feed.mute_track(mic, True, NOW + 1)
    feed.mute_track(mic, False, NOW + 2)
    feed.mute_track(mic, True, NOW + 3)
    feed.mute_track(mic, False, NOW + 4)
    feed.push(mic, 10, NOW, b"after")
    if is_told:
        feed.detach()
    feed.attach(second)
    assert mutes_and_frames(second) == [b"before", NOW + 1, b"after"]


def test_a_mute_that_nothing_follows_is_told_until_something_after_it_is_safe(feed: RoomFeed) -> None:
    first, second, mic = FeedWorker(), FeedWorker(), track(feed)
    feed.start_recording(recording())
    feed.attach(first)
    feed.set_tracks("r1", [mic.facts.key])
    feed.push(mic, 5, NOW, b"before")
    feed.mute_track(mic, True, NOW + 1)
    feed.safe(mic, 5)
    assert not mic.held
    feed.detach()
    feed.attach(second)
    assert mutes_and_frames(second) == [NOW + 1]
    feed.push(mic, 10, NOW, b"after")
    feed.safe(mic, 10)
    feed.detach()
    feed.attach(first)
    first.take()
    feed.attach(second)
    assert mutes_and_frames(second) == [b"after"]


def mutes_and_frames(worker: FeedWorker) -> list[object]:
    told: list[object] = []
    for each in worker.take():
        match each:
            case protocol.TrackMute():
                assert each.muted
                told.append(each.at_ns)
            case protocol.Frames():
                told.append(each.batch)
    return told


@pytest.mark.parametrize("kind", protocol.RecordingKind)
def test_each_recording_gets_a_track_up_to_where_it_left_it(
    feed: RoomFeed, kind: protocol.RecordingKind
) -> None:
    first, second, mic = FeedWorker(), FeedWorker(), track(feed)
    names = ("stays", "early", "late")
    for name in names:
        feed.start_recording(recording(name, kind))
    feed.attach(first)
    for name in names:
        feed.set_tracks(name, [mic.facts.key])
    feed.push(mic, 5, NOW, b"five")
    feed.set_tracks("early", [])
    feed.push(mic, 10, NOW, b"ten")
    feed.set_tracks("late", [])
    feed.push(mic, 15, NOW, b"fifteen")
    feed.detach()
    feed.attach(second)
    heard = heard_by(second, mic.handle)
    assert heard == {"stays": [b"five", b"ten", b"fifteen"], "early": [b"five"], "late": [b"five", b"ten"]}
    assert len(second.messages) == 0


def heard_by(worker: FeedWorker, handle: int) -> dict[str, list[bytes]]:
    """The batches of a track that each recording of a worker takes."""
    heard: dict[str, list[bytes]] = {}
    takers: set[str] = set()
    for each in worker.take():
        match each:
            case protocol.RecordingTracks():
                change = takers.add if handle in each.tracks else takers.discard
                change(each.recording_id)
            case protocol.Frames():
                assert each.track == handle
                for taker in takers:
                    heard.setdefault(taker, []).append(each.batch)
    return heard


@pytest.mark.parametrize("leaves_first", [True, False])
def test_a_room_that_waits_for_its_worker_is_closed_with_all_that_the_worker_has(
    feed: RoomFeed, leaves_first: bool
) -> None:
    worker, mic = FeedWorker(), track(feed)
    feed.start_recording(recording())
    feed.attach(worker)
    feed.set_tracks("r1", [mic.facts.key])
    feed.push(mic, 5, NOW, b"one")
    feed.recording_failed("r1")
    assert feed.restart()
    known, handle = worker.take(), mic.handle
    if leaves_first:
        feed.close_track(mic, NOW)
    feed.stop_recording("r1", NOW)
    feed.recording_stopped("r1")
    feed.close()
    told = worker.take()
    assert handle in [each.track for each in told if isinstance(each, protocol.TrackClose)]
    [opened] = [each for each in known if isinstance(each, protocol.RoomOpen)]
    assert told[-1] == protocol.RoomClose(opened.room)
    assert feed.worker is None
