"""A manifest out of bytes that anybody may have written."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from roomtape_service.clock import NANOSECONDS
from roomtape_service.manifest.encoding import digest_line
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

__all__ = ["ManifestError", "is_as_written", "read_manifest"]

T = TypeVar("T")

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ManifestError(ValueError):
    """What was read is no manifest; the text says where it is wrong."""


def is_as_written(data: bytes) -> bool:
    """Whether the last line is the digest of all lines before it."""
    body, newline, last = data.removesuffix(b"\n").rpartition(b"\n")
    return bool(newline) and digest_line(body + newline) == last + b"\n"


def read_manifest(data: bytes) -> Manifest:
    """The manifest. Fields that it does not know are left out. Raises ManifestError."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"it is no JSON: {error}") from None
    return _manifest(_Item(content, "the manifest"))


@dataclass(frozen=True, slots=True)
class _Item:
    """A JSON object, and where it is."""

    content: object
    place: str

    def text(self, key: str) -> str:
        return self._get(key, str)

    def number(self, key: str) -> int:
        value = self._get(key, int)
        if value < 0 or isinstance(value, bool):
            raise ManifestError(f"{self.place}: {key} is {value!r}, which is no number from 0 on")
        return value

    def flag(self, key: str) -> bool:
        return self._get(key, bool)

    def time(self, key: str) -> int:
        text = self.text(key)
        found = _TIME.fullmatch(text)
        try:
            if not found:
                raise ValueError
            moment = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
        except ValueError:
            raise ManifestError(f"{self.place}: {key} is {text!r}, which is no time") from None
        since = moment - _EPOCH
        return (since.days * 86_400 + since.seconds) * NANOSECONDS + int(found[2])

    def optional(self, key: str, read: Callable[[str], T]) -> T | None:
        return read(key) if key in self._mapping() else None

    def item(self, key: str) -> "_Item":
        return _Item(self._mapping().get(key), f"{self.place}, {key}")

    def items(self, key: str) -> list["_Item"]:
        values = self._get(key, list)
        return [_Item(value, f"{self.place}, {key} {number}") for number, value in enumerate(values)]

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._get(key, list)
        if not all(isinstance(value, str) for value in values):
            raise ManifestError(f"{self.place}: {key} has something that is no text")
        return tuple(str(value) for value in values)

    def numbers(self, key: str) -> dict[str, int]:
        item = self.item(key)
        return {name: item.number(name) for name in item._mapping()}

    def map(self, key: str) -> dict[str, str]:
        item = self.item(key)
        return {name: item.text(name) for name in item._mapping()}

    def _get(self, key: str, kind: type[T]) -> T:
        value = self._mapping().get(key)
        if not isinstance(value, kind):
            raise ManifestError(f"{self.place}: {key} is missing or wrong")
        return value

    def _mapping(self) -> Mapping[str, object]:
        if not isinstance(self.content, dict):
            raise ManifestError(f"{self.place} is missing, or no JSON object")
        return self.content


def _manifest(item: _Item) -> Manifest:
    version = item.number("version")
    if version != FORMAT_VERSION:
        raise ManifestError(f"it has version {version}; this program knows version {FORMAT_VERSION}")
    return Manifest(
        version=version,
        service_version=item.text("service_version"),
        app_id=item.text("app_id"),
        room_id=item.text("room_id"),
        task_id=item.text("task_id"),
        client_task_id=item.text("client_task_id"),
        object_key=item.text("object_key"),
        complete=item.flag("complete"),
        state=item.text("state"),
        mode=item.text("mode"),
        stop_reason=item.optional("stop_reason", item.text),
        labels=item.map("labels"),
        start_ns=item.time("start_time"),
        stop_ns=item.optional("stop_time", item.time),
        complete_ns=item.optional("complete_time", item.time),
        output=_output(item.item("output")),
        room=_room(item.item("room")),
        scopes=tuple(map(_scope, item.items("scopes"))),
        participants=tuple(map(_participant, item.items("participants"))),
        recordings=tuple(map(_recording, item.items("recordings"))),
    )


def _output(item: _Item) -> Output:
    return Output(
        single_containers=item.texts("single_containers"),
        mixed_containers=item.texts("mixed_containers"),
        segment_duration_ns=item.number("segment_duration_ns"),
        audio_bitrate_bps=item.number("audio_bitrate_bps"),
        retention_seconds=item.optional("retention_seconds", item.number),
        audio_sample_rate_hz=item.optional("audio_sample_rate_hz", item.number),
        audio_channels=item.optional("audio_channels", item.number),
    )


def _room(item: _Item) -> Room:
    return Room(
        clock=item.text("clock"),
        create_ns=item.time("create_time"),
        close_ns=item.optional("close_time", item.time),
        epoch_ns=item.optional("epoch_time", item.time),
    )


def _scope(item: _Item) -> Scope:
    return Scope(
        start_ns=item.optional("start_time", item.time),
        mode=item.text("mode"),
        allow_user_ids=item.texts("allow_user_ids"),
        block_user_ids=item.texts("block_user_ids"),
    )


def _participant(item: _Item) -> Participant:
    return Participant(
        user_id=item.text("user_id"),
        publish_session_id=item.text("publish_session_id"),
        join_ns=item.time("join_time"),
        leave_ns=item.optional("leave_time", item.time),
        tracks=tuple(map(_track, item.items("tracks"))),
    )


def _track(item: _Item) -> Track:
    return Track(
        track_id=item.text("track_id"),
        source=item.text("source"),
        codec=item.text("codec"),
        sample_rate_hz=item.number("sample_rate_hz"),
        channels=item.number("channels"),
        mutes=tuple(
            Mute(each.time("start_time"), each.optional("end_time", each.time))
            for each in item.items("mutes")
        ),
    )


def _recording(item: _Item) -> Recording:
    return Recording(
        recording_id=item.text("recording_id"),
        kind=item.text("kind"),
        user_id=item.text("user_id"),
        start_ns=item.time("start_time"),
        end_ns=item.optional("end_time", item.time),
        segments=tuple(map(_segment, item.items("segments"))),
        joined_files=tuple(map(_file, item.items("joined_files"))),
        gaps=tuple(map(_gap, item.items("gaps"))),
        interruptions=tuple(map(_interruption, item.items("interruptions"))),
    )


def _segment(item: _Item) -> Segment:
    return Segment(
        segment_id=item.number("segment_id"),
        start_ns=item.time("start_time"),
        end_ns=item.optional("end_time", item.time),
        interrupted=item.flag("interrupted"),
        files=tuple(map(_file, item.items("files"))),
        statistics=item.numbers("statistics"),
        last_sequences=tuple(
            LastSequence(
                each.text("user_id"),
                each.text("publish_session_id"),
                each.text("track_id"),
                each.number("sequence"),
            )
            for each in item.items("last_sequences")
        ),
    )


def _file(item: _Item) -> File:
    return File(
        file_id=item.text("file_id"),
        container=item.text("container"),
        codec=item.text("codec"),
        state=item.text("state"),
        object_key=item.text("object_key"),
        store=item.text("store"),
        url=item.text("url"),
        start_ns=item.time("start_time"),
        end_ns=item.optional("end_time", item.time),
        sample_rate_hz=item.number("sample_rate_hz"),
        channels=item.number("channels"),
        sample_count=item.number("sample_count"),
        encoder_delay_samples=item.number("encoder_delay_samples"),
        size_bytes=item.number("size_bytes"),
        sha256=item.text("sha256"),
        expire_ns=item.optional("expire_time", item.time),
        first_segment_id=item.optional("first_segment_id", item.number),
        joined_segments=item.optional("joined_segments", item.number),
    )


def _gap(item: _Item) -> Gap:
    return Gap(item.text("user_id"), item.time("start_time"), item.time("end_time"), item.text("reason"))


def _interruption(item: _Item) -> Interruption:
    return Interruption(item.number("segment_id"), item.text("cause"), item.time("time"))
