"""A live room, its participants and their tracks, as the node has them in memory."""

import asyncio
from dataclasses import dataclass, field

from google.protobuf import timestamp_pb2

from roomtape.v1 import room_pb2
from roomtape_service.clock import NANOSECONDS

__all__ = ["LiveParticipant", "LiveRoom", "LiveTrack", "timestamp"]


def timestamp(at_ns: int) -> timestamp_pb2.Timestamp:
    """`at_ns` (UTC nanoseconds) as a Timestamp."""
    seconds, nanos = divmod(at_ns, NANOSECONDS)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos)


@dataclass(slots=True)
class LiveTrack:
    """A track of a participant; `key` names it across connections: `<publish_session_id>/<track_id>`."""

    key: str
    proto: room_pb2.Track


@dataclass(slots=True)
class LiveParticipant:
    """A user who is in the room, connected or expected back."""

    participant_key: str
    user_id: str
    publish_session_id: str
    join_ns: int
    tracks: dict[str, LiveTrack] = field(default_factory=dict)
    connected: bool = False

    def proto(self) -> room_pb2.Participant:
        """The participant as the contract has it."""
        return room_pb2.Participant(
            user_id=self.user_id,
            publish_session_id=self.publish_session_id,
            join_time=timestamp(self.join_ns),
            connected=self.connected,
            tracks=[track.proto for track in self.tracks.values()],
        )


@dataclass(slots=True)
class LiveRoom:
    """An open room.

    `lock` is held over every change of who is there and what is recorded, from the decision to the commands that
    follow its commit, so that workers hear of changes in the order in which they were stored.
    """

    room_key: str
    app_id: str
    room_id: str
    clock: room_pb2.RoomClock
    epoch_ns: int
    create_ns: int
    participants: dict[str, LiveParticipant] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    closed: bool = False

    def proto(self) -> room_pb2.Room:
        """The room without its participants."""
        return room_pb2.Room(
            app_id=self.app_id, room_id=self.room_id, clock=self.clock, create_time=timestamp(self.create_ns)
        )

    def audio_tracks(self) -> dict[str, list[str]]:
        """Keys of the audio tracks of each user who is there, by join order."""
        return {user: [track.key for track in who.tracks.values()] for user, who in self.participants.items()}

    def track(self, key: str) -> LiveTrack | None:
        """The track with this key, if its participant is there."""
        for who in self.participants.values():
            for track in who.tracks.values():
                if track.key == key:
                    return track
        return None
