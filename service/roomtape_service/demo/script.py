"""Who speaks when. Two talk at once where one part overlaps the next, so the mix has something to mix."""

from dataclasses import dataclass

from roomtape.v1 import media_pb2
from roomtape_service.demo.clips import CLIPS, Clip

__all__ = ["APP_ID", "MIXED_CONTAINERS", "ROOM_ID", "SCRIPT", "SINGLE_CONTAINERS", "Part"]

APP_ID = "demo"
ROOM_ID = "green-room"

SINGLE_CONTAINERS = (media_pb2.CONTAINER_MP3, media_pb2.CONTAINER_OGG)
MIXED_CONTAINERS = (media_pb2.CONTAINER_MP3,)


@dataclass(frozen=True, slots=True)
class Part:
    """One speaker's part: joins `join_seconds` after the start, speaks the clip, and leaves."""

    clip: Clip
    join_seconds: float

    @property
    def user_id(self) -> str:
        """Who speaks."""
        return self.clip.user_id


_ADA, _BEN, _CLEO = CLIPS

SCRIPT = (Part(_ADA, 0.5), Part(_BEN, 5.5), Part(_CLEO, 11.5))
