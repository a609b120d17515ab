"""What a worker that takes over a room is sent of the frames that are not safe."""

from collections.abc import Mapping

from roomtape_service.recording import protocol
from roomtape_service.recording.front.channel import WorkerChannel
from roomtape_service.recording.front.recording import FeedRecording
from roomtape_service.recording.front.track import FeedTrack

__all__ = ["CatchingUp"]


class CatchingUp:
    """Sends held frames to a worker that was told of the room, its open tracks, and its recordings."""

    def __init__(
        self,
        worker: WorkerChannel,
        tracks: Mapping[str, FeedTrack],
        recordings: Mapping[str, FeedRecording],
    ) -> None:
        self._worker = worker
        self._tracks = tracks
        self._recordings = recordings

    def send_departing(self) -> dict[str, int]:
        """Sends what recordings still lack of tracks that they take no more.

        A single takes one track at a time, so they come one after the other; of each a recording has no more than it
        took. Returns up to where each was sent.
        """
        left = {key for recording in self._recordings.values() for key in recording.leaving}
        tracks = [track for track in self._tracks.values() if track.closed_at_ns is not None]
        tracks += [track for key, track in self._tracks.items() if key in left and track not in tracks]
        sent: dict[str, int] = {}
        for track in tracks:
            key = track.facts.key
            for recording in self._recordings.values():
                if recording.takes_one_track and key in (*recording.tracks, *recording.leaving):
                    self._tell(protocol.RecordingTracks(recording.facts.recording_id, (track.handle,)))
            if key in left:
                sent[key] = self._send_to_leave(track)
                continue
            sent[key] = self._send_held(track, 0, None)
            if track.is_open:
                self._tell_condition(track)
        return sent

    def send_rest(self, sent: Mapping[str, int]) -> None:
        """Sends all that was not `sent`, and how the tracks are."""
        for track in self._tracks.values():
            self._send_held(track, sent.get(track.facts.key, 0), None)
            if track.is_open:
                self._tell_condition(track)

    def _send_to_leave(self, track: FeedTrack) -> int:
        """Sends a track up to where the last recording left it, each of them up to where it did."""
        key = track.facts.key
        leaving = [each for each in self._recordings.values() if key in each.leaving]
        sent = 0
        for recording in sorted(leaving, key=lambda each: each.leaving[key]):
            sent = self._send_held(track, sent, recording.leaving[key])
            recording.left.add(key)
            staying = [] if recording.takes_one_track else [*recording.tracks, *recording.leaving]
            handles = tuple(self._tracks[each].handle for each in staying if each not in recording.left)
            self._tell(protocol.RecordingTracks(recording.facts.recording_id, handles))
        return sent

    def _send_held(self, track: FeedTrack, after: int, limit: int | None) -> int:
        sent = after
        for held in track.held:
            if held.sequence > after and (limit is None or held.sequence <= limit):
                if held.muted_at_ns is not None:
                    self._tell(protocol.TrackMute(track.handle, True, held.muted_at_ns))
                self._worker.send(protocol.frames_message(track.handle, held.arrival_ns, held.batch))
                sent = max(sent, held.sequence)
        if limit is None and track.held.muted_at_ns is not None and track.is_open:
            self._tell(protocol.TrackMute(track.handle, True, track.held.muted_at_ns))
        return sent

    def _tell_condition(self, track: FeedTrack) -> None:
        if track.closed_at_ns is not None:
            self._tell(protocol.TrackClose(track.handle, track.closed_at_ns))
        elif not track.is_connected:
            self._tell(protocol.TrackLost(track.handle, protocol.BEFORE_ALL_NS))

    def _tell(self, op: protocol.NodeOp) -> None:
        self._worker.send(protocol.encode(op))
