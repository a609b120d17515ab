"""What a room's feed tells its worker, and what it holds until it is safe."""

import pytest

from roomtape_service.recording import protocol
from roomtape_service.recording.front.feed import FeedFacts, RoomFeed, TrackIndex
from roomtape_service.recording.front.recording import FeedRecording, RecordingFacts
from roomtape_service.recording.front.track import FeedTrack, TrackFacts
from roomtape_service.recording.remembering import REMEMBERED_TRACKS

NOW = 1_700_000_000_000_000_000


class Worker:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.messages: list[protocol.Message] = []
        self._decoder = protocol.MessageDecoder()

    def send(self, message: bytes) -> None:
        self.messages += self._decoder.feed(message)

    def take(self) -> list[protocol.Message]:
        messages, self.messages = self.messages, []
        return messages

    def frames(self) -> list[bytes]:
        return [each.batch for each in self.take() if isinstance(each, protocol.Frames)]


@pytest.fixture
def index() -> TrackIndex:
    return {}


@pytest.fixture
def feed(index: TrackIndex) -> RoomFeed:
    feed = RoomFeed(FeedFacts("room", protocol.RoomClock.ARRIVAL), index)
    feed.begin(NOW)
    return feed


def recording(
    name: str = "r1", kind: protocol.RecordingKind = protocol.RecordingKind.SINGLE
) -> FeedRecording:
    return FeedRecording(
        RecordingFacts(
            recording_id=name,
            task_id="t1",
            kind=kind,
            containers=(protocol.Container.WAV,),
            segment_ns=7200 * 10**9,
            segment_bytes=1 << 31,
            bitrate=64000,
            mute_ends_segment=False,
            break_wait_ns=30 * 10**9,
            from_ns=NOW,
        )
    )


def track(feed: RoomFeed, name: str = "mic") -> FeedTrack:
    return feed.add_track(TrackFacts(f"s1/{name}", "anna", protocol.TrackCodec.OPUS, 48000, 1))


def test_frames_that_nobody_records_are_safe_at_once(feed: RoomFeed) -> None:
    mic = track(feed)
    feed.push(mic, 5, NOW, b"batch")
    assert mic.acknowledged == 5
    assert not mic.held


def test_recorded_frames_are_held_until_the_worker_says_that_they_are_safe(feed: RoomFeed) -> None:
    worker, mic = Worker(), track(feed)
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
    first, second, mic = Worker(), Worker(), track(feed)
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
    first, second, mic = Worker(), Worker(), track(feed)
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
    worker, mic = Worker(), track(feed)
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
    worker, mic = Worker(), track(feed)
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
    worker, mic = Worker(), track(feed)
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
    worker, mic = Worker(), track(feed)
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
    first, second, old, new = Worker(), Worker(), track(feed, "old"), track(feed, "new")
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
    first, second, mic = Worker(), Worker(), track(feed)
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
    worker, mic = Worker(), track(feed)
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
    worker, mic = Worker(), track(feed)
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
    worker = Worker()
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
    worker, each = Worker(), recording(kind=protocol.RecordingKind.MIXED)
    each.continue_after(0, NOW, {"gone": protocol.Resume(30, NOW)})
    feed.start_recording(each)
    feed.attach(worker)
    start = next(told for told in worker.take() if isinstance(told, protocol.RecordingStart))
    assert start.resume == {"gone": protocol.Resume(30, NOW)}


@pytest.mark.parametrize("is_told", [True, False], ids=["told to the worker that is lost", "told to nobody"])
def test_a_mute_keeps_its_place_between_frames_that_are_sent_again(feed: RoomFeed, is_told: bool) -> None:
    first, second, mic = Worker(), Worker(), track(feed)
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
    first, second, mic = Worker(), Worker(), track(feed)
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


def mutes_and_frames(worker: Worker) -> list[object]:
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
    first, second, mic = Worker(), Worker(), track(feed)
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


def heard_by(worker: Worker, handle: int) -> dict[str, list[bytes]]:
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
    worker, mic = Worker(), track(feed)
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


def test_a_recording_remembers_those_of_its_passers_by_who_left_last(feed: RoomFeed) -> None:
    worker, each = Worker(), recording(kind=protocol.RecordingKind.MIXED)
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
    worker = Worker()
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
    worker = Worker()
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
    worker, other = Worker(), Worker()
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
    worker, mic = Worker(), track(feed)
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
