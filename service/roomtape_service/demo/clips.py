"""Who speaks in the demo. `tools/make_clips.py` makes the Opus files beside this module out of this table."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["CLIPS", "Clip"]


@dataclass(frozen=True, slots=True)
class Clip:
    """A spoken sentence: `voice`, `pitch` (0 to 99) and `words_per_minute` as espeak-ng takes them."""

    user_id: str
    voice: str
    pitch: int
    words_per_minute: int
    text: str

    @property
    def path(self) -> Path:
        """The sentence as Opus in Ogg, mono."""
        return Path(__file__).with_name(f"{self.user_id}.opus")


CLIPS = (
    Clip(
        "ada",
        "en-us+f3",
        60,
        150,
        "Hello, I am Ada. Roomtape is recording this room: each of us on a tape of our own, "
        "and all of us together on one more.",
    ),
    Clip(
        "ben",
        "en-gb+m3",
        35,
        155,
        "I am Ben. I came in a little later, while Ada was talking. My own tape starts with me, "
        "and in the mix you can hear us both.",
    ),
    Clip(
        "cleo",
        "en-gb-scotland+f4",
        75,
        160,
        "And I am Cleo, the last one here. When I leave, the task is stopped, "
        "and every file goes into storage, checked byte for byte.",
    ),
)
