"""Which recordings a task has, and what goes into each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from roomtape.v1 import segment_pb2, task_pb2
from roomtape_service.rules.subscription import selects_audio

__all__ = ["RecordingKey", "desired_recordings"]

_SINGLES = {task_pb2.RECORD_MODE_SINGLE, task_pb2.RECORD_MODE_SINGLE_AND_MIXED}
_MIXES = {task_pb2.RECORD_MODE_MIXED, task_pb2.RECORD_MODE_SINGLE_AND_MIXED}


@dataclass(frozen=True, slots=True, order=True)
class RecordingKey:
    """What a recording is of; `user_id` is empty for the mix."""

    kind: segment_pb2.RecordingKind
    user_id: str


def desired_recordings(
    mode: task_pb2.RecordMode,
    subscription: task_pb2.Subscription,
    audio_tracks: Mapping[str, Sequence[str]],
) -> dict[RecordingKey, tuple[str, ...]]:
    """The recordings that should run now, with the track keys that each takes.

    `audio_tracks` maps the users who are in the room to the keys of their audio tracks. The mix is there only while
    somebody in scope is.
    """
    in_scope = {
        user: keys for user, keys in audio_tracks.items() if keys and selects_audio(subscription, user)
    }
    desired: dict[RecordingKey, tuple[str, ...]] = {}
    if mode in _SINGLES:
        for user, keys in in_scope.items():
            desired[RecordingKey(segment_pb2.RECORDING_KIND_SINGLE, user)] = tuple(keys[:1])
    if mode in _MIXES and in_scope:
        desired[RecordingKey(segment_pb2.RECORDING_KIND_MIXED, "")] = tuple(_flatten(in_scope.values()))
    return desired


def _flatten(groups: Iterable[Sequence[str]]) -> list[str]:
    return [key for group in groups for key in group]
