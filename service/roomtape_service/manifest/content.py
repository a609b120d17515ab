"""From what the database knows of a task to its manifest. The same rows give the same manifest."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf.descriptor import EnumDescriptor

from roomtape.v1 import event_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.database.history import TaskHistory
from roomtape_service.database.participants import MuteRow, PresenceRow
from roomtape_service.database.recordings import RecordingRow
from roomtape_service.database.rooms import NO_EPOCH_NS, RoomRow
from roomtape_service.database.scopes import ScopeRow
from roomtape_service.database.segments import SegmentRow
from roomtape_service.database.tasks import TaskRow
from roomtape_service.manifest.model import (
    FORMAT_VERSION,
    File,
    Gap,
    Interruption,
    LastSequence,
    Manifest,
    Mute,
    Output,
    Participant,
    Recording,
    Room,
    Scope,
    Segment,
    Track,
)

__all__ = ["build", "is_finished", "is_over"]

_TAKEN_AWAY = (segment_pb2.SEGMENT_STATE_DELETED, segment_pb2.SEGMENT_STATE_EXPIRED)
_UPLOADED = segment_pb2.SEGMENT_STATE_UPLOADED


def is_finished(history: TaskHistory) -> bool:
    """Whether the task was stopped, its recordings have ended, and each segment is in a store or never will be."""
    return (
        history.task.state >= task_pb2.TASK_STATE_FINALIZING
        and all(recording.end_ns is not None for recording in history.recordings)
        and all(segment.state >= _UPLOADED for segment in history.segments)
    )


def is_over(history: TaskHistory) -> bool:
    """Whether nothing of a COMPLETED task is in a store any more, since its files were deleted, or expired."""
    states = [row.state for row in (*history.segments, *history.joined)]
    return (
        history.task.state == task_pb2.TASK_STATE_COMPLETED
        and any(state in _TAKEN_AWAY for state in states)
        and all(state > _UPLOADED for state in states)
    )


def build(history: TaskHistory, *, object_key: str, service_version: str, complete_ns: int) -> Manifest:
    """The manifest. `complete_ns` is when a task that is finished and not yet COMPLETED will have been completed."""
    task = history.task
    state, completed_ns = task.state, task.complete_ns
    if state == task_pb2.TASK_STATE_FINALIZING and is_finished(history):
        state, completed_ns = task_pb2.TASK_STATE_COMPLETED, complete_ns
    segments = _by_recording(history.segments)
    joined = _by_recording(history.joined)
    gaps = defaultdict(list)
    for gap in history.gaps:
        gaps[gap.recording_id].append(
            Gap(gap.user_id, gap.start_ns, gap.end_ns, _word(event_pb2.GapReason.DESCRIPTOR, gap.reason))
        )
    interruptions = defaultdict(list)
    for each in history.interruptions:
        cause = _word(event_pb2.InterruptionCause.DESCRIPTOR, each.cause)
        interruptions[each.recording_id].append(Interruption(each.segment_id, cause, each.time_ns))
    return Manifest(
        version=FORMAT_VERSION,
        service_version=service_version,
        app_id=task.app_id,
        room_id=task.room_id,
        task_id=task.task_id,
        client_task_id=task.client_task_id,
        object_key=object_key,
        complete=state >= task_pb2.TASK_STATE_COMPLETED,
        state=_word(task_pb2.TaskState.DESCRIPTOR, state),
        mode=_word(task_pb2.RecordMode.DESCRIPTOR, task.mode),
        stop_reason=_word(task_pb2.StopReason.DESCRIPTOR, task.stop_reason) if task.stop_reason else None,
        labels=task.label_map,
        start_ns=task.start_ns,
        stop_ns=task.stop_ns,
        complete_ns=completed_ns,
        output=_output(task),
        room=_room(history.room),
        scopes=_scopes(task, history.scopes),
        participants=_participants(history),
        recordings=tuple(
            _recording(
                row,
                segments[row.recording_id],
                joined[row.recording_id],
                gaps[row.recording_id],
                interruptions[row.recording_id],
            )
            for row in history.recordings
        ),
    )


def _output(task: TaskRow) -> Output:
    output = task_pb2.OutputSettings.FromString(task.output)
    return Output(
        single_containers=tuple(_container(each) for each in output.single_containers),
        mixed_containers=tuple(_container(each) for each in output.mixed_containers),
        segment_duration_ns=output.segment_duration.seconds * NANOSECONDS + output.segment_duration.nanos,
        audio_bitrate_bps=output.audio_bitrate_bps,
        audio_sample_rate_hz=output.audio_sample_rate_hz or None,
        audio_channels=output.audio_channels or None,
        retention_seconds=output.retention.seconds if output.HasField("retention") else None,
    )


def _room(row: RoomRow) -> Room:
    return Room(
        clock=_word(room_pb2.RoomClock.DESCRIPTOR, row.clock),
        create_ns=row.create_ns,
        close_ns=row.close_ns,
        epoch_ns=None if row.epoch_ns == NO_EPOCH_NS else row.epoch_ns,
    )


def _scopes(task: TaskRow, rows: Sequence[ScopeRow]) -> tuple[Scope, ...]:
    if not rows:
        # A task of before scopes were kept: what it took last is all that is known.
        rows = [ScopeRow(task.task_id, task.start_ns, task.mode, task.subscription)]
    scopes = []
    for number, row in enumerate(rows):
        audio = task_pb2.Subscription.FromString(row.subscription).audio
        scopes.append(
            Scope(
                start_ns=row.time_ns if number else None,
                mode=_word(task_pb2.RecordMode.DESCRIPTOR, row.mode),
                allow_user_ids=tuple(audio.allow_user_ids),
                block_user_ids=tuple(audio.block_user_ids),
            )
        )
    return tuple(scopes)


def _participants(history: TaskHistory) -> tuple[Participant, ...]:
    """Those who were in the room while the task was running, or whose media it has."""
    task = history.task
    is_media_clock = history.room.clock == room_pb2.ROOM_CLOCK_MEDIA
    mutes = defaultdict(list)
    for mute in history.mutes:
        mutes[mute.participant_key, mute.track_id].append(mute)
    found = []
    for row in history.presences:
        came_late = task.stop_ns is not None and row.join_ns > task.stop_ns
        left_early = row.leave_ns is not None and row.leave_ns < task.start_ns
        if is_media_clock or not (came_late or left_early):
            found.append(_participant(row, mutes))
    return tuple(found)


def _participant(row: PresenceRow, mutes: Mapping[tuple[str, str], Sequence[MuteRow]]) -> Participant:
    tracks = room_pb2.Participant.FromString(row.tracks).tracks
    return Participant(
        user_id=row.user_id,
        publish_session_id=row.publish_session_id,
        join_ns=row.join_ns,
        leave_ns=row.leave_ns,
        tracks=tuple(
            Track(
                track_id=track.track_id,
                source=_word(media_pb2.TrackSource.DESCRIPTOR, track.source),
                codec=_word(media_pb2.Codec.DESCRIPTOR, track.codec),
                sample_rate_hz=track.sample_rate_hz,
                channels=track.channels,
                mutes=_spans(mutes.get((row.participant_key, track.track_id), ()), row.leave_ns),
            )
            for track in tracks
        ),
    )


def _spans(changes: Iterable[MuteRow], leave_ns: int | None) -> tuple[Mute, ...]:
    spans: list[Mute] = []
    since_ns: int | None = None
    for change in changes:
        if change.muted and since_ns is None:
            since_ns = change.time_ns
        elif not change.muted and since_ns is not None:
            spans.append(Mute(since_ns, change.time_ns))
            since_ns = None
    if since_ns is not None:
        spans.append(Mute(since_ns, leave_ns))
    return tuple(spans)


def _by_recording(rows: Iterable[SegmentRow]) -> defaultdict[str, list[SegmentRow]]:
    found: defaultdict[str, list[SegmentRow]] = defaultdict(list)
    for row in rows:
        found[row.recording_id].append(row)
    return found


def _recording(
    row: RecordingRow,
    files: Sequence[SegmentRow],
    joined: Sequence[SegmentRow],
    gaps: Sequence[Gap],
    interruptions: Sequence[Interruption],
) -> Recording:
    numbered: defaultdict[int, list[SegmentRow]] = defaultdict(list)
    for file in files:
        numbered[file.segment_id].append(file)
    known: dict[str, int] = {}
    segments = [_segment(numbered[segment_id], known) for segment_id in sorted(numbered)]
    return Recording(
        recording_id=row.recording_id,
        kind=_word(segment_pb2.RecordingKind.DESCRIPTOR, row.kind),
        user_id=row.user_id,
        start_ns=row.start_ns,
        end_ns=row.end_ns,
        segments=tuple(segments),
        joined_files=tuple(_file(each) for each in joined),
        gaps=tuple(gaps),
        interruptions=tuple(interruptions),
    )


def _segment(rows: Sequence[SegmentRow], known: dict[str, int]) -> Segment:
    """`known` are the newest sequences by track key; it goes on to those of this segment."""
    first = rows[0]
    sequences = []
    for key, (sequence, *_) in sorted(json.loads(first.resume).items()):
        if sequence > known.get(key, 0):
            known[key] = sequence
            user_id, session_id, track_id = key.rsplit("/", 2)
            sequences.append(LastSequence(user_id, session_id, track_id, sequence))
    return Segment(
        segment_id=first.segment_id,
        start_ns=first.start_ns,
        end_ns=first.end_ns,
        interrupted=any(row.interrupted for row in rows),
        files=tuple(_file(row) for row in rows),
        statistics=_statistics(first.statistics),
        last_sequences=tuple(sequences),
    )


def _statistics(data: bytes | None) -> dict[str, int]:
    if data is None:
        return {}
    counts = segment_pb2.FrameStatistics.FromString(data)
    return {
        "recorded": counts.recorded,
        "lost": counts.lost,
        "duplicated": counts.duplicated,
        "reordered": counts.reordered,
        "rejected": counts.rejected,
    }


def _file(row: SegmentRow) -> File:
    return File(
        file_id=row.file_id,
        container=_container(row.container),
        codec=_word(media_pb2.Codec.DESCRIPTOR, row.codec),
        state=_word(segment_pb2.SegmentState.DESCRIPTOR, row.state),
        object_key=row.object_key,
        store=row.store,
        url=row.url,
        start_ns=row.start_ns,
        end_ns=row.end_ns,
        sample_rate_hz=row.sample_rate,
        channels=row.channels,
        sample_count=row.sample_count,
        encoder_delay_samples=row.encoder_delay,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        expire_ns=row.expire_ns,
        first_segment_id=row.segment_id if row.joined else None,
        joined_segments=row.joined or None,
    )


def _container(number: int) -> str:
    return _word(media_pb2.Container.DESCRIPTOR, number)


def _word(enum: EnumDescriptor, number: int) -> str:
    """The name of a value without what all values of the enum begin with."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return enum.values_by_number[number].name.removeprefix(prefix)
