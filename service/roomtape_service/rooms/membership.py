"""What follows from a change of who is in a room, for those who decide by it what is recorded."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from roomtape_service.database.unit_of_work import UnitOfWork
from roomtape_service.rooms.room import LiveParticipant, LiveRoom
from roomtape_service.rules.scope import AudioTrack

__all__ = ["Apply", "MembershipListener", "Users", "audio_tracks"]

Apply = Callable[[], None]
"""What is to be done in memory, and told to workers, once the unit of work is durable."""

Users = Mapping[str, Sequence[AudioTrack]]
"""Those who are in a room by join order, with their audio tracks, main tracks first."""


class MembershipListener(Protocol):
    """Decides within the unit of work that changes a room, under the room's lock."""

    async def room_changed(self, uow: UnitOfWork, room: LiveRoom, users: Users) -> Sequence[Apply]:
        """`users` are there after the change."""
        ...

    async def room_closed(self, uow: UnitOfWork, room: LiveRoom) -> Sequence[Apply]:
        """The room is closed by this unit."""
        ...


def audio_tracks(participants: Mapping[str, LiveParticipant]) -> dict[str, list[AudioTrack]]:
    """The audio tracks of those who are there."""
    return {user_id: tracks_of(who) for user_id, who in participants.items()}


def tracks_of(who: LiveParticipant) -> list[AudioTrack]:
    """A participant's audio tracks, main ones first."""
    ordered = sorted(who.tracks.values(), key=lambda track: track.proto.source)
    return [AudioTrack(track.key, track.proto.codec) for track in ordered]
