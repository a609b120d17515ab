"""A manifest as bytes: UTF-8 JSON, the same bytes for the same manifest, and one line for each entry of a list.

The last line is the digest: SHA-256 of all lines before it. `head -n -1 manifest.json | sha256sum` gives it, too.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TypeAlias

from roomtape_service.clock import NANOSECONDS
from roomtape_service.manifest.model import (
    File,
    Gap,
    Interruption,
    LastSequence,
    Manifest,
    Output,
    Participant,
    Recording,
    Room,
    Scope,
    Segment,
    Track,
)

__all__ = ["DIGEST_PREFIX", "digest_line", "encode", "show_time"]

Json: TypeAlias = "str | int | bool | list[Json] | dict[str, Json]"

DIGEST_PREFIX = '"digest": "'
"""What the last line begins with."""


def encode(manifest: Manifest) -> bytes:
    """The document."""
    lines = ["{"]
    lines += [f"{_text(key)}: {_text(value)}," for key, value in _head(manifest).items()]
    lines += _list("scopes", map(_scope, manifest.scopes))
    lines += _list("participants", map(_participant, manifest.participants))
    lines.append('"recordings": [')
    for number, recording in enumerate(manifest.recordings):
        lines += _recording(recording, is_last=number == len(manifest.recordings) - 1)
    lines.append("],")
    body = "".join(f"{line}\n" for line in lines).encode()
    return body + digest_line(body)


def digest_line(body: bytes) -> bytes:
    """The last line of a document, of which `body` is all before it."""
    return f'{DIGEST_PREFIX}{hashlib.sha256(body).hexdigest()}"}}\n'.encode()


def show_time(time_ns: int) -> str:
    """RFC 3339 with nine digits: `2026-01-31T23:59:59.000000001Z`."""
    seconds, nanoseconds = divmod(time_ns, NANOSECONDS)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment.strftime('%Y-%m-%dT%H:%M:%S').zfill(19)}.{nanoseconds:09d}Z"


def _text(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


def _list(key: str, items: Iterable[dict[str, Json]], *, is_last: bool = False) -> list[str]:
    texts = [_text(item) for item in items]
    end = "]" if is_last else "],"
    if not texts:
        return [f"{_text(key)}: [{end}"]
    return [f"{_text(key)}: [", *(f"{text}," for text in texts[:-1]), texts[-1], end]


def _recording(recording: Recording, *, is_last: bool) -> list[str]:
    head: dict[str, Json] = {
        "recording_id": recording.recording_id,
        "kind": recording.kind,
        "user_id": recording.user_id,
        "start_time": show_time(recording.start_ns),
    }
    _put_time(head, "end_time", recording.end_ns)
    return [
        f"{_text(head)[:-1]},",
        *_list("segments", map(_segment, recording.segments)),
        *_list("joined_files", map(_file, recording.joined_files)),
        *_list("gaps", map(_gap, recording.gaps)),
        *_list("interruptions", map(_interruption, recording.interruptions), is_last=True),
        "}" if is_last else "},",
    ]


def _head(manifest: Manifest) -> dict[str, Json]:
    head: dict[str, Json] = {
        "version": manifest.version,
        "service_version": manifest.service_version,
        "app_id": manifest.app_id,
        "room_id": manifest.room_id,
        "task_id": manifest.task_id,
        "client_task_id": manifest.client_task_id,
        "object_key": manifest.object_key,
        "complete": manifest.complete,
        "state": manifest.state,
        "mode": manifest.mode,
        "labels": _sorted(manifest.labels),
        "start_time": show_time(manifest.start_ns),
    }
    _put_time(head, "stop_time", manifest.stop_ns)
    if manifest.stop_reason is not None:
        head["stop_reason"] = manifest.stop_reason
    _put_time(head, "complete_time", manifest.complete_ns)
    head["output"] = _output(manifest.output)
    head["room"] = _room(manifest.room)
    return head


def _output(output: Output) -> dict[str, Json]:
    item: dict[str, Json] = {
        "single_containers": list(output.single_containers),
        "mixed_containers": list(output.mixed_containers),
        "segment_duration_ns": output.segment_duration_ns,
        "audio_bitrate_bps": output.audio_bitrate_bps,
    }
    if output.retention_seconds is not None:
        item["retention_seconds"] = output.retention_seconds
    if output.audio_sample_rate_hz is not None:
        item["audio_sample_rate_hz"] = output.audio_sample_rate_hz
    if output.audio_channels is not None:
        item["audio_channels"] = output.audio_channels
    return item


def _room(room: Room) -> dict[str, Json]:
    item: dict[str, Json] = {"clock": room.clock, "create_time": show_time(room.create_ns)}
    _put_time(item, "close_time", room.close_ns)
    _put_time(item, "epoch_time", room.epoch_ns)
    return item


def _scope(scope: Scope) -> dict[str, Json]:
    item: dict[str, Json] = {}
    _put_time(item, "start_time", scope.start_ns)
    item["mode"] = scope.mode
    item["allow_user_ids"] = list(scope.allow_user_ids)
    item["block_user_ids"] = list(scope.block_user_ids)
    return item


def _participant(who: Participant) -> dict[str, Json]:
    item: dict[str, Json] = {
        "user_id": who.user_id,
        "publish_session_id": who.publish_session_id,
        "join_time": show_time(who.join_ns),
    }
    _put_time(item, "leave_time", who.leave_ns)
    item["tracks"] = [_track(track) for track in who.tracks]
    return item


def _track(track: Track) -> dict[str, Json]:
    mutes: list[Json] = []
    for mute in track.mutes:
        span: dict[str, Json] = {"start_time": show_time(mute.start_ns)}
        _put_time(span, "end_time", mute.end_ns)
        mutes.append(span)
    return {
        "track_id": track.track_id,
        "source": track.source,
        "codec": track.codec,
        "sample_rate_hz": track.sample_rate_hz,
        "channels": track.channels,
        "mutes": mutes,
    }


def _segment(segment: Segment) -> dict[str, Json]:
    item: dict[str, Json] = {"segment_id": segment.segment_id, "start_time": show_time(segment.start_ns)}
    _put_time(item, "end_time", segment.end_ns)
    item["interrupted"] = segment.interrupted
    item["files"] = [_file(file) for file in segment.files]
    item["statistics"] = dict(segment.statistics)
    item["last_sequences"] = [_sequence(each) for each in segment.last_sequences]
    return item


def _file(file: File) -> dict[str, Json]:
    item: dict[str, Json] = {
        "file_id": file.file_id,
        "container": file.container,
        "codec": file.codec,
        "state": file.state,
        "object_key": file.object_key,
        "store": file.store,
        "url": file.url,
        "start_time": show_time(file.start_ns),
    }
    _put_time(item, "end_time", file.end_ns)
    item["sample_rate_hz"] = file.sample_rate_hz
    item["channels"] = file.channels
    item["sample_count"] = file.sample_count
    item["encoder_delay_samples"] = file.encoder_delay_samples
    item["size_bytes"] = file.size_bytes
    item["sha256"] = file.sha256
    _put_time(item, "expire_time", file.expire_ns)
    if file.first_segment_id is not None:
        item["first_segment_id"] = file.first_segment_id
    if file.joined_segments is not None:
        item["joined_segments"] = file.joined_segments
    return item


def _sequence(last: LastSequence) -> dict[str, Json]:
    return {
        "user_id": last.user_id,
        "publish_session_id": last.publish_session_id,
        "track_id": last.track_id,
        "sequence": last.sequence,
    }


def _gap(gap: Gap) -> dict[str, Json]:
    return {
        "user_id": gap.user_id,
        "start_time": show_time(gap.start_ns),
        "end_time": show_time(gap.end_ns),
        "reason": gap.reason,
    }


def _interruption(interruption: Interruption) -> dict[str, Json]:
    return {
        "segment_id": interruption.segment_id,
        "cause": interruption.cause,
        "time": show_time(interruption.time_ns),
    }


def _put_time(item: dict[str, Json], key: str, time_ns: int | None) -> None:
    if time_ns is not None:
        item[key] = show_time(time_ns)


def _sorted(values: Mapping[str, str]) -> dict[str, Json]:
    return {key: values[key] for key in sorted(values)}
