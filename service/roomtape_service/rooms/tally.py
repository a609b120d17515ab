"""How many are in a room, kept along the events of one unit."""

from dataclasses import dataclass
from typing import Self

from roomtape.v1 import event_pb2, room_pb2
from roomtape_service.events.build import participant_event
from roomtape_service.rooms.room import LiveRoom

__all__ = ["RoomTally"]


@dataclass(slots=True)
class RoomTally:
    """Counts that each event of a participant carries as they are after it.

    Begun under the room's lock from what is in memory, in the unit that changes the room: it may run twice.
    """

    participants: int
    tracks: int
    muted_tracks: int

    @classmethod
    def of(cls, room: LiveRoom) -> Self:
        """Before the change."""
        tracks = [track.proto for who in room.participants.values() for track in who.tracks.values()]
        return cls(len(room.participants), len(tracks), sum(track.muted for track in tracks))

    def event(
        self,
        event_type: event_pb2.EventType.ValueType,
        room: room_pb2.Room,
        participant: room_pb2.Participant,
        track: room_pb2.Track | None = None,
    ) -> event_pb2.Event:
        """See `participant_event`; counts what it tells. `track` is the track after the event."""
        muted = track is not None and track.muted
        match event_type:
            case event_pb2.EVENT_TYPE_PARTICIPANT_JOINED:
                self.participants += 1
            case event_pb2.EVENT_TYPE_PARTICIPANT_LEFT:
                self.participants -= 1
            case event_pb2.EVENT_TYPE_TRACK_STARTED:
                self.tracks += 1
                self.muted_tracks += muted
            case event_pb2.EVENT_TYPE_TRACK_STOPPED:
                self.tracks -= 1
                self.muted_tracks -= muted
            case event_pb2.EVENT_TYPE_TRACK_MUTED:
                self.muted_tracks += 1
            case event_pb2.EVENT_TYPE_TRACK_UNMUTED:
                self.muted_tracks -= 1
        event = participant_event(event_type, room, participant, track)
        event.participant.participant_count = self.participants
        event.participant.track_count = self.tracks
        event.participant.muted_track_count = self.muted_tracks
        return event
