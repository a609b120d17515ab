"""Which recordings a task has, and what goes into each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from roomtape.v1 import media_pb2, segment_pb2, task_pb2
from roomtape_service.rules.subscription import selects_audio

__all__ = ["AudioTrack", "RecordingKey", "desired_recordings"]

_SINGLES = {task_pb2.RECORD_MODE_SINGLE, task_pb2.RECORD_MODE_SINGLE_AND_MIXED}
_MIXES = {task_pb2.RECORD_MODE_MIXED, task_pb2.RECORD_MODE_SINGLE_AND_MIXED}


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """A track that could be recorded; `key` names it across connections."""

    key: str
    codec: media_pb2.Codec.ValueType


@dataclass(frozen=True, slots=True, order=True)
class RecordingKey:
    """What a recording is of; `user_id` is empty for the mix."""

    kind: segment_pb2.RecordingKind.ValueType
    user_id: str


def desired_recordings(
    mode: task_pb2.RecordMode.ValueType,
    subscription: task_pb2.Subscription,
    users: Mapping[str, Sequence[AudioTrack]],
) -> dict[RecordingKey, tuple[AudioTrack, ...]]:
    """The recordings that should run now, with the tracks that each takes.

    `users` maps those who are in the room to their audio tracks, the main one first: a single takes the first, the mix
    takes all. The mix is there only while somebody in scope is.
    """
    in_scope = {
        user: tracks for user, tracks in users.items() if tracks and selects_audio(subscription, user)
    }
    desired: dict[RecordingKey, tuple[AudioTrack, ...]] = {}
    if mode in _SINGLES:
        for user, tracks in in_scope.items():
            desired[RecordingKey(segment_pb2.RECORDING_KIND_SINGLE, user)] = (tracks[0],)
    if mode in _MIXES and in_scope:
        everybody = tuple(track for tracks in in_scope.values() for track in tracks)
        desired[RecordingKey(segment_pb2.RECORDING_KIND_MIXED, "")] = everybody
    return desired
