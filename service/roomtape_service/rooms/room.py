"""A live room, its participants and their tracks, as the node has them in memory."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf import timestamp_pb2

from roomtape.v1 import room_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.errors import Refusal
from roomtape_service.recording.front.feed import RoomFeed
from roomtape_service.recording.front.track import FeedTrack

__all__ = ["Connection", "LiveParticipant", "LiveRoom", "LiveTrack", "timestamp", "track_key", "user_of"]


class Connection(Protocol):
    """The way back to a publisher."""

    def end(self, refusal: Refusal) -> None:
        """Ends the publisher's stream with this answer."""
        ...


def track_key(user_id: str, publish_session_id: str, track_id: str) -> str:
    """The name of a track in its room, across connections.

    Users choose their session ids, and two may choose the same one. Only a user id may have a slash.
    """
    return f"{user_id}/{publish_session_id}/{track_id}"


def user_of(key: str) -> str:
    """The user whose track a `track_key` names."""
    return key.rsplit("/", 2)[0]


def timestamp(at_ns: int) -> timestamp_pb2.Timestamp:
    """`at_ns` (UTC nanoseconds) as a Timestamp."""
    seconds, nanos = divmod(at_ns, NANOSECONDS)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos)


@dataclass(slots=True)
class LiveTrack:
    """A track of a participant; `key` names it across connections: see `track_key`."""

    key: str
    proto: room_pb2.Track
    feed: FeedTrack


@dataclass(slots=True)
class LiveParticipant:
    """A user who is in the room, connected or expected back."""

    participant_key: str
    user_id: str
    publish_session_id: str
    join_ns: int
    tracks: dict[str, LiveTrack] = field(default_factory=dict)
    connection: "Connection | None" = None
    lost_at_ns: int | None = None
    sent_ns: int = 0
    """Newest `sent_time` of the publisher: on a MEDIA clock the room time that it has reached."""
    unless_back: list[Callable[[UnitOfWork], Awaitable[None]]] = field(default_factory=list)
    """What is told in the unit that takes them out of the room, if they never came back after the node's start."""

    @property
    def connected(self) -> bool:
        """Whether the publisher's connection is up."""
        return self.connection is not None

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
    clock: room_pb2.RoomClock.ValueType
    create_ns: int
    feed: RoomFeed
    epoch_ns: int | None
    """From where workers count: the room's creation, or on a MEDIA clock when the first participant joined; None before
    that."""
    participants: dict[str, LiveParticipant] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    closed: bool = False

    def proto(self) -> room_pb2.Room:
        """The room without its participants."""
        return room_pb2.Room(
            app_id=self.app_id, room_id=self.room_id, clock=self.clock, create_time=timestamp(self.create_ns)
        )

    def now_ns(self, server_ns: int) -> int:
        """The room's time: the server's, or on a MEDIA clock the newest that a publisher has reached."""
        if self.clock != room_pb2.ROOM_CLOCK_MEDIA:
            return server_ns
        begun_ns = self.create_ns if self.epoch_ns is None else self.epoch_ns
        return max((who.sent_ns for who in self.participants.values()), default=begun_ns)

    def begin(self, epoch_ns: int) -> None:
        """The first participant joins on a MEDIA clock: files may be of years before or after the room was opened."""
        self.epoch_ns = epoch_ns
        self.feed.begin(epoch_ns)
