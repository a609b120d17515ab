"""What one room feeds to its worker.

The feed is the truth about what the worker should know. Every change is made here first and then told to the worker, if
there is one; a worker that takes over is told everything by `attach`, the frames that are not safe included.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from roomtape_service.recording import protocol
from roomtape_service.recording.front.awaiting import Awaiting, split_batch
from roomtape_service.recording.front.catching_up import CatchingUp
from roomtape_service.recording.front.channel import WorkerChannel
from roomtape_service.recording.front.departed import DepartedTrack
from roomtape_service.recording.front.held import HeldFrames
from roomtape_service.recording.front.recording import FeedRecording
from roomtape_service.recording.front.track import FeedTrack, TrackFacts

__all__ = ["FeedFacts", "RoomFeed", "TrackIndex"]

_handles = itertools.count(1)


@dataclass(frozen=True, slots=True)
class FeedFacts:
    """What a worker must know of a room."""

    room_key: str
    clock: protocol.RoomClock


class RoomFeed:
    """Tracks and recordings of one room, on one worker at a time. Not safe to share between event loops."""

    def __init__(self, facts: FeedFacts, index: "TrackIndex") -> None:
        self.facts = facts
        self.tracks: dict[str, FeedTrack] = {}
        self.recordings: dict[str, FeedRecording] = {}
        self.awaiting = Awaiting(self)
        self._index = index
        self._handle = 0
        self._worker: WorkerChannel | None = None
        self._parked: WorkerChannel | None = None
        self._epoch_ns: int | None = None
        self._gap_reason = protocol.GapReason.INTERRUPTED

    @property
    def worker(self) -> WorkerChannel | None:
        """The worker that has the room now, or will have it again in a moment."""
        return self._worker or self._parked

    def begin(self, epoch_ns: int) -> None:
        """Says from where workers count samples. Before anything is recorded, since positions depend on it."""
        self._epoch_ns = epoch_ns

    def attach(self, worker: WorkerChannel) -> None:
        """Gives the room to `worker`, under new handles: it knows nothing of the room."""
        assert self._epoch_ns is not None
        self._worker, self._parked = worker, None
        self._handle = next(_handles)
        self._tell(protocol.RoomOpen(self._handle, self.facts.clock, self._epoch_ns, self._gap_reason))
        self._gap_reason = protocol.GapReason.INTERRUPTED
        for track in self.tracks.values():
            track.is_open = False
        for recording in self.recordings.values():
            if recording.is_idle:
                _lay_to_rest(recording)
            else:
                self._start(recording)
        catching_up = CatchingUp(worker, self.tracks, self.recordings)
        sent = catching_up.send_departing()
        for recording in self.recordings.values():
            if recording.stop_at_ns is None:
                self._tell_tracks(recording)
            else:
                self._tell_stop(recording)
        catching_up.send_rest(sent)

    def detach(self) -> None:
        """The worker is lost; frames are held until there is another."""
        self._worker = self._parked = None
        for track in self.tracks.values():
            track.is_open = False
        for recording in self.recordings.values():
            recording.unanswered_rests = 0

    def close(self) -> None:
        """The room is closed and nothing of it is recorded any more."""
        self._end_on_worker()
        self._worker = self._parked = None
        for track in self.tracks.values():
            track.drop_kept()
            self._index.pop(track.handle, None)

    def take_up(self, departed: DepartedTrack, kept: Path) -> bool:
        """Goes on with a track whose participant left, before there is a worker.

        Returns whether anybody lacks it: not if its recordings have ended, or the participant will send it again.
        """
        recordings = [self.recordings[each] for each in departed.recordings if each in self.recordings]
        key = departed.facts.key
        if not recordings or key in self.tracks:
            return False
        track = FeedTrack(next(_handles), departed.facts, departed.acknowledged, kept=kept)
        track.closed_at_ns = departed.closed_at_ns
        track.held = HeldFrames.of(departed.batches)
        for recording in recordings:
            track.recordings.add(recording.facts.recording_id)
            recording.tracks = (*recording.tracks, key)
        self.tracks[key] = track
        self._index[track.handle] = (self, track)
        return True

    def is_safe(self, track: FeedTrack, *, where_kept: bool) -> bool:
        """Whether all of a track is recorded or, with `where_kept`, kept for recordings that only wait for others."""
        if not track.held:
            return True
        lacking = [self.recordings[each] for each in track.recordings if each in self.recordings]
        return where_kept and track.kept is not None and not any(each.has_failed for each in lacking)

    def forget_kept(self, track: FeedTrack, kept: DepartedTrack) -> None:
        """A track was kept as it was; nothing of that counts any more if it went on, or is gone."""
        if self.tracks.get(track.facts.key) is not track or track.held.newest() != kept.batches[-1].sequence:
            track.drop_kept()

    def add_track(self, facts: TrackFacts, acknowledged: int = 0) -> FeedTrack:
        """A track is there. `acknowledged` is where a resumed session goes on.

        A publisher who had closed, but was not told that all is safe, comes again with the same session: the track goes
        on where it was.
        """
        known = self.tracks.get(facts.key)
        if known is not None:
            self._reopen(known)
            return known
        track = FeedTrack(next(_handles), facts, acknowledged=acknowledged)
        # One who comes again with the session of before need not send again what is safe.
        track.is_restored = any(facts.key in each.resume for each in self.recordings.values())
        self.tracks[facts.key] = track
        self._index[track.handle] = (self, track)
        for recording_id in self.awaiting.takers(facts.key):
            track.is_restored = True
            self.set_tracks(recording_id, (*self.recordings[recording_id].tracks, facts.key))
        return track

    def push(self, track: FeedTrack, sequence: int, arrival_ns: int, batch: bytes) -> None:
        """A batch came: `sequence` is its highest, 0 for a batch without frames; `batch` a serialized FrameBatch."""
        key = track.facts.key
        while (limit := self.awaiting.limit(key)) is not None and limit <= sequence:
            head, rest = split_batch(batch, limit)
            if head is not None:
                self._push(track, head[0], arrival_ns, head[1])
            self.awaiting.has_come(key, limit)
            if rest is None:
                return
            batch = rest
        self._push(track, sequence, arrival_ns, batch)

    def _push(self, track: FeedTrack, sequence: int, arrival_ns: int, batch: bytes) -> None:
        if track.kept is not None:
            track.drop_kept()
        if not track.recordings:
            if sequence:
                track.acknowledge(sequence)
            return
        if sequence:
            track.held.hold(sequence, arrival_ns, batch)
        if self._worker is not None:
            self._worker.send(protocol.frames_message(track.handle, arrival_ns, batch))

    def mute_track(self, track: FeedTrack, muted: bool, at_ns: int) -> None:
        """The platform says that the track is silent, or speaks again."""
        if muted and track.recordings:
            track.held.mute(at_ns)
        if track.is_open:
            self._tell(protocol.TrackMute(track.handle, muted, at_ns))

    def lose_track(self, track: FeedTrack, at_ns: int) -> None:
        """The publisher's connection broke; it may come back."""
        track.is_connected = False
        if track.is_open:
            self._tell(protocol.TrackLost(track.handle, at_ns))

    def return_track(self, track: FeedTrack) -> None:
        """The publisher's connection is back."""
        track.is_connected = True
        if track.is_open:
            self._tell(protocol.TrackBack(track.handle))

    def close_track(self, track: FeedTrack, at_ns: int) -> None:
        """The participant left. The track stays in the feed until all of it is safe."""
        track.closed_at_ns = at_ns
        self.awaiting.has_left(track.facts.key)
        if track.is_open:
            self._tell_end(protocol.TrackClose(track.handle, at_ns))
        self._forget_if_done(track)

    def start_recording(self, recording: FeedRecording) -> None:
        """Starts a recording, or goes on with one from its resume points."""
        self.recordings[recording.facts.recording_id] = recording
        for key in recording.tracks:
            self.tracks[key].recordings.add(recording.facts.recording_id)
        if self._worker is not None:
            self._start(recording)
            self._tell_tracks(recording)

    def set_tracks(self, recording_id: str, keys: Iterable[str]) -> None:
        """Says which tracks the recording takes from now on."""
        recording = self.recordings[recording_id]
        before, after = recording.tracks, list(keys)
        # A participant who left is still being written; their tracks go when all of them is safe.
        after += [key for key in before if key not in after and self.tracks[key].closed_at_ns is not None]
        if before == tuple(after):
            return
        if recording.is_resting and self._worker is not None:
            self._start(recording)
        recording.tracks = tuple(after)
        removed = [key for key in before if key not in after]
        for key in removed:
            recording.leaving[key] = self.tracks[key].held.newest()
        for key in after:
            self._take(recording, self.tracks[key])
        self._tell_tracks(recording)
        for key in removed:
            self._leave_if_safe(self.tracks[key])

    def rest_if_idle(self, recording: FeedRecording) -> None:
        """Lets the worker forget a recording whose user left: thousands may pass through a room."""
        if recording.is_idle and recording.is_running and self._worker is not None:
            _lay_to_rest(recording)
            recording.unanswered_rests += 1
            self._tell(protocol.RecordingStop(recording.facts.recording_id, protocol.BEFORE_ALL_NS))

    def stop_recording(self, recording_id: str, at_ns: int) -> None:
        """Ends a recording; it is gone when `recording_stopped` comes back."""
        recording = self.recordings[recording_id]
        recording.stop_at_ns = at_ns
        if recording.is_resting and self._worker is not None:
            self._start(recording)
        # What comes from now on is not in it, even if another worker has to end it.
        staying = [key for key in recording.tracks if self.tracks[key].closed_at_ns is None]
        recording.tracks = tuple(key for key in recording.tracks if key not in staying)
        for key in staying:
            recording.leaving[key] = self.tracks[key].held.newest()
        self._tell_stop(recording)

    def came_until(self, recording_id: str) -> dict[str, int]:
        """By track the newest sequence that the recording takes and that is not safe, were it stopped now."""
        recording = self.recordings.get(recording_id)
        if recording is None:
            return {}
        came = recording.leaving | {key: self.tracks[key].held.newest() for key in recording.tracks}
        return {key: sequence for key, sequence in came.items() if sequence > self.tracks[key].acknowledged}

    def forget_recording(self, recording_id: str) -> None:
        """A recording that no worker was told of has all."""
        del self.recordings[recording_id]

    def recording_failed(self, recording_id: str) -> None:
        """The worker gave up a recording: what it takes is not acknowledged beyond its resume points."""
        recording = self.recordings.get(recording_id)
        if recording is not None:
            recording.is_running = recording.begins_anew = False
            recording.has_failed = True

    def restart(self, trouble: protocol.SpoolTrouble | None = None) -> bool:
        """Begins anew with the worker after a recording failed: the others end their segments, then all go on.

        A worker takes each frame of a track once, so a recording that is behind can't be helped alone. Returns whether
        the room can be attached again at once; otherwise the last that fails, or the last `recording_stopped`, says so.
        `trouble`: why all segments count as interrupted.
        """
        if trouble is protocol.SpoolTrouble.FULL:
            self._gap_reason = protocol.GapReason.SPOOL_FULL
        if self._worker is None:
            return self._is_parked()
        for recording in self.recordings.values():
            if recording.is_running and recording.stop_at_ns is None:
                recording_id = recording.facts.recording_id
                recording.begins_anew = True
                self._tell(protocol.RecordingStop(recording_id, protocol.BEFORE_ALL_NS, trouble))
        self._parked, self._worker = self._worker, None
        return self._is_parked()

    def resume_parked(self) -> None:
        """Goes on after `restart` with the same worker."""
        worker = self._parked
        if worker is None or not self._is_parked():
            return
        self._end_on_worker()
        self.attach(worker)

    def recording_stopped(self, recording_id: str) -> bool:
        """The worker has written the last of a recording.

        Returns whether the room waits for nothing else to be attached again.
        """
        recording = self.recordings.get(recording_id)
        if recording is None:
            return False
        if recording.unanswered_rests:
            recording.unanswered_rests -= 1
            return False
        recording.is_running = False
        if recording.begins_anew:
            # What came since then is not written, even if it is to end now.
            recording.begins_anew = False
            return self._is_parked()
        del self.recordings[recording_id]
        for track in list(self.tracks.values()):
            self._discard(track, recording_id)
        return self._is_parked()

    def safe(self, track: FeedTrack, sequence: int) -> None:
        """The worker says that all of the track up to `sequence` is on disk in every recording that it runs."""
        for recording_id in track.recordings:
            recording = self.recordings.get(recording_id)
            if recording is not None and not recording.is_running:
                sequence = min(sequence, recording.safe_sequence(track.facts.key))
        track.acknowledge(sequence)
        self._leave_if_safe(track)
        self._forget_if_done(track)

    def _reopen(self, track: FeedTrack) -> None:
        track.drop_kept()
        track.closed_at_ns = None
        track.is_open = False
        track.is_connected = True
        key = track.facts.key
        for recording in self.recordings.values():
            if key in recording.tracks:
                recording.tracks = tuple(each for each in recording.tracks if each != key)
                recording.leaving[key] = track.held.newest()

    def _is_parked(self) -> bool:
        return self._parked is not None and not any(each.is_running for each in self.recordings.values())

    def _take(self, recording: FeedRecording, track: FeedTrack) -> None:
        recording.leaving.pop(track.facts.key, None)
        if recording.facts.recording_id not in track.recordings:
            recording.base[track.facts.key] = track.acknowledged
            track.recordings.add(recording.facts.recording_id)
        if self._worker is not None and not track.is_open:
            # What is held of it was sent before it was closed.
            self._open(track, after=track.held.newest())

    def _leave_if_safe(self, track: FeedTrack) -> None:
        key = track.facts.key
        for recording_id in list(track.recordings):
            recording = self.recordings.get(recording_id)
            if recording is None or track.acknowledged < recording.leaving.get(key, track.acknowledged + 1):
                continue
            del recording.leaving[key]
            self._discard(track, recording_id)
            self.rest_if_idle(recording)

    def _discard(self, track: FeedTrack, recording_id: str) -> None:
        if recording_id not in track.recordings:
            return
        track.recordings.discard(recording_id)
        if track.recordings:
            return
        track.acknowledge_all()
        if track.is_open and track.closed_at_ns is None:
            self._tell_end(protocol.TrackClose(track.handle, protocol.BEFORE_ALL_NS))
            track.is_open = False
        self._forget_if_done(track)

    def _start(self, recording: FeedRecording) -> None:
        recording.is_running = True
        recording.is_resting = recording.begins_anew = False
        recording.left.clear()
        keys = (*recording.tracks, *recording.leaving)
        expected = tuple(key for key in keys if not self.tracks[key].is_connected)
        self._tell(recording.start(self._handle, expected))
        for key in keys:
            if not self.tracks[key].is_open:
                self._open(self.tracks[key], recording.resume.get(key))
        if not recording.takes_one_track:
            self._tell(protocol.RecordingTracks(recording.facts.recording_id, self._handles(keys)))

    def _open(self, track: FeedTrack, resume: protocol.Resume | None = None, after: int = 0) -> None:
        facts = track.facts
        self._index.pop(track.handle, None)
        track.handle = next(_handles)
        self._index[track.handle] = (self, track)
        track.is_open = True
        sequence = max(track.acknowledged, after)
        self._tell(
            protocol.TrackOpen(
                track=track.handle,
                room=self._handle,
                user_id=facts.user_id,
                key=facts.key,
                codec=facts.codec,
                sample_rate=facts.sample_rate,
                channels=facts.channels,
                offset_ns=resume.offset_ns if resume else None,
                sequence=None if track.is_restored and not sequence else sequence,
            )
        )

    def _tell_stop(self, recording: FeedRecording) -> None:
        if recording.stop_at_ns is not None and recording.is_running:
            self._tell(protocol.RecordingStop(recording.facts.recording_id, recording.stop_at_ns))

    def _tell_tracks(self, recording: FeedRecording) -> None:
        if recording.is_running:
            handles = self._handles(recording.tracks)
            self._tell(protocol.RecordingTracks(recording.facts.recording_id, handles))

    def _tell(self, op: protocol.NodeOp) -> None:
        if self._worker is not None:
            self._worker.send(protocol.encode(op))

    def _tell_end(self, op: protocol.TrackClose | protocol.RoomClose) -> None:
        """Also to a worker that waits: it keeps what does not end."""
        if self.worker is not None:
            self.worker.send(protocol.encode(op))

    def _end_on_worker(self) -> None:
        for track in self.tracks.values():
            if track.is_open and track.closed_at_ns is None:
                self._tell_end(protocol.TrackClose(track.handle, protocol.BEFORE_ALL_NS))
        self._tell_end(protocol.RoomClose(self._handle))

    def _handles(self, keys: Iterable[str]) -> tuple[int, ...]:
        return tuple(self.tracks[key].handle for key in keys)

    def _forget_if_done(self, track: FeedTrack) -> None:
        key = track.facts.key
        if track.closed_at_ns is None or track.held or self.tracks.get(key) is not track:
            return
        for recording_id in track.recordings:
            recording = self.recordings.get(recording_id)
            if recording is not None:
                recording.tracks = tuple(each for each in recording.tracks if each != key)
                recording.leaving.pop(key, None)
                recording.base.pop(key, None)
                self.rest_if_idle(recording)
        del self.tracks[key]
        track.drop_kept()
        self._index.pop(track.handle, None)


def _lay_to_rest(recording: FeedRecording) -> None:
    recording.is_running, recording.is_resting = False, True
    # Nothing is missing between the last segment and the next, which begins when the user is back.
    recording.position_ns = None


TrackIndex = dict[int, tuple[RoomFeed, FeedTrack]]
"""Finds a track by the handle under which workers know it."""
