"""Who publishes what into which room, and how it is recorded: ten kinds of recordings and more.

Publishers, watchers and the verdict run in processes of their own; this is what they agree on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from roomtape.v1 import media_pb2, task_pb2

__all__ = [
    "APP",
    "CAST",
    "FRAME_MS",
    "RATE_HZ",
    "SCENES",
    "TRACK",
    "Behaviour",
    "Role",
    "Scene",
    "role_name",
    "scenes_of",
]

APP = "app"
TRACK = "mic"
RATE_HZ = 48_000
FRAME_MS = 20

_MP3, _OGG, _WAV = media_pb2.CONTAINER_MP3, media_pb2.CONTAINER_OGG, media_pb2.CONTAINER_WAV


class Behaviour(StrEnum):
    """What a publisher does all the time."""

    TALK = "talk"
    MUTE = "mute"
    """Falls silent again and again, and says so."""
    RETURN = "return"
    """Leaves again and again, and comes back with a new session."""
    PAUSE = "pause"
    """Sends nothing while nothing is said (DTX)."""
    FORGET = "forget"
    """Talks, and sends nothing again that was lost."""
    FAST = "fast"
    """Plays faster than real time, on a MEDIA clock: large files."""


@dataclass(frozen=True, slots=True)
class Role:
    """One user."""

    user_id: str
    is_opus: bool
    behaviour: Behaviour = Behaviour.TALK
    channels: int = 1


@dataclass(frozen=True, slots=True)
class Scene:
    """A room with one task."""

    room_id: str
    roles: Sequence[Role]
    singles: Sequence[media_pb2.Container.ValueType] = ()
    mixes: Sequence[media_pb2.Container.ValueType] = ()
    allowed: Sequence[str] = ()
    segment_seconds: float = 4.0
    is_media: bool = False

    @property
    def mode(self) -> task_pb2.RecordMode.ValueType:
        """What of the room is recorded."""
        if self.singles and self.mixes:
            return task_pb2.RECORD_MODE_SINGLE_AND_MIXED
        return task_pb2.RECORD_MODE_MIXED if self.mixes else task_pb2.RECORD_MODE_SINGLE

    @property
    def recorded(self) -> Sequence[Role]:
        """The users with a file of their own."""
        return [
            role
            for role in self.roles
            if self.singles and (role.user_id in (self.allowed or (role.user_id,)))
        ]


def _opus(user_id: str, behaviour: Behaviour = Behaviour.TALK) -> Role:
    return Role(user_id, True, behaviour)


def _pcm(user_id: str, behaviour: Behaviour = Behaviour.TALK) -> Role:
    return Role(user_id, False, behaviour)


SCENES: Sequence[Scene] = (
    Scene("opus-mp3", [_opus("ann")], [_MP3]),
    Scene("opus-ogg", [_opus("bob")], [_OGG]),
    Scene("opus-wav", [_opus("cem")], [_WAV]),
    Scene("all", [_opus("dan")], [_MP3, _OGG, _WAV]),
    Scene("pcm-wav", [_pcm("eva")], [_WAV]),
    Scene("pcm-mp3", [_pcm("fay")], [_MP3]),
    Scene("mix-mp3", [_opus("gil"), _pcm("hal")], mixes=[_MP3]),
    Scene("mix-wav", [_opus("ida"), _pcm("jon")], mixes=[_WAV]),
    Scene("both", [_pcm("kay"), _opus("lee")], [_WAV], [_WAV]),
    Scene("allowed", [_opus("mia"), _opus("ned")], [_OGG], allowed=["mia"]),
    Scene("muted", [_pcm("oda", Behaviour.MUTE)], [_WAV]),
    Scene("return", [_pcm("pam", Behaviour.RETURN)], [_WAV]),
    Scene("dtx", [_opus("qin", Behaviour.PAUSE)], [_OGG, _WAV]),
    Scene("forget", [_pcm("ray", Behaviour.FORGET)], [_WAV]),
    Scene("fast", [Role("sam", False, Behaviour.FAST, 2)], [_WAV], segment_seconds=120, is_media=True),
)

CAST: Sequence[tuple[Scene, Role]] = [(scene, role) for scene in SCENES for role in scene.roles]


def role_name(scene: Scene, role: Role) -> str:
    """Under which a publisher's logs are kept."""
    return f"{scene.room_id}.{role.user_id}"


def scenes_of(names: Sequence[str]) -> Sequence[Scene]:
    """The scenes of these rooms; all when none is named."""
    return [scene for scene in SCENES if not names or scene.room_id in names]
