"""The object keys of recordings.

A recording's files lie in a folder of the application, the room and, if it is of one user, the user (Tencent
GME's custom recording): `app_room_user/${start}_${segment}_audio.mp3` for a user,
`app_room/${task}_${start}_${segment}_audio.mp3` for the mix. `${start}` is the start of the task in UTC+8.

1. Ids are escaped one to one, and a room's `_` is escaped too while an application's id has none, so a folder
   says by its name which application, room and user it is of, and no other three have the same.
2. A folder's name too long for a file system keeps its start and ends in `~~` and the SHA-256
   of the whole; `~~` is in no escaped id.
3. Two tasks that start in the same second can give two files one key: the later takes the first free of
   `numbered`.
4. A task's manifest is `app_room/${task}/manifest.json`: in the mix's folder, whether or not there is a mix.
"""

import hashlib
import re
from datetime import UTC, datetime, timedelta, timezone

from roomtape.v1 import media_pb2
from roomtape_service.clock import NANOSECONDS

__all__ = [
    "EXTENSIONS",
    "MAX_KEY_BYTES",
    "MAX_PREFIX_BYTES",
    "escape_id",
    "manifest_key",
    "mixed_key",
    "moved",
    "name_stamp",
    "numbered",
    "single_key",
]

MAX_KEY_BYTES = 1024
"""What every vendor takes (S3, COS, TOS: 1,024 bytes of UTF-8)."""
MAX_PREFIX_BYTES = 512
"""StorageSettings.prefix; with the longest folder and file name a key stays within `MAX_KEY_BYTES`."""

EXTENSIONS = {
    media_pb2.CONTAINER_MP3: "mp3",
    media_pb2.CONTAINER_OGG: "ogg",
    media_pb2.CONTAINER_WAV: "wav",
    media_pb2.CONTAINER_AAC: "aac",
    media_pb2.CONTAINER_M4A: "m4a",
}

_FOLDER_BYTES = 255
"""NAME_MAX of the usual file systems, which lie behind the disk store and many S3 servers."""
_UNSAFE = re.compile(rb"[^A-Za-z0-9._-]")
_UNSAFE_IN_ROOM = re.compile(rb"[^A-Za-z0-9.-]")
_LEADING_DOT = re.compile(rb"\A\.")
_VENDOR_ZONE = timezone(timedelta(hours=8))


def escape_id(text: str) -> str:
    """`text` with every byte of its UTF-8 outside `[A-Za-z0-9._-]`, and a dot at its start, as `~` and two
    upper-case hexadecimal digits. One to one; `~` itself becomes `~7E`.
    """
    return _escape(text, _UNSAFE)


def single_key(
    prefix: str,
    app_id: str,
    room_id: str,
    user_id: str,
    task_start_ns: int,
    segment_id: int,
    container: media_pb2.Container.ValueType,
    *,
    last_segment_id: int | None = None,
) -> str:
    """The key of a user's segment, or of the file that it and those up to `last_segment_id` were joined into.

    `task_start_ns` is UTC since 1970.
    """
    number = _number(segment_id, last_segment_id)
    folder = _folder(app_id, _escape(room_id, _UNSAFE_IN_ROOM), escape_id(user_id))
    return _join(prefix, folder, f"{name_stamp(task_start_ns)}_{number}_audio.{EXTENSIONS[container]}")


def mixed_key(
    prefix: str,
    app_id: str,
    room_id: str,
    task_id: str,
    task_start_ns: int,
    segment_id: int,
    container: media_pb2.Container.ValueType,
    *,
    last_segment_id: int | None = None,
) -> str:
    """The key of a mix's segment, as `single_key`."""
    number = _number(segment_id, last_segment_id)
    folder = _folder(app_id, _escape(room_id, _UNSAFE_IN_ROOM))
    name = f"{task_id}_{name_stamp(task_start_ns)}_{number}_audio.{EXTENSIONS[container]}"
    return _join(prefix, folder, name)


def manifest_key(prefix: str, app_id: str, room_id: str, task_id: str) -> str:
    """The key of a task's manifest."""
    folder = _folder(app_id, _escape(room_id, _UNSAFE_IN_ROOM))
    return _join(prefix, folder, f"{escape_id(task_id)}/manifest.json")


def numbered(key: str, n: int) -> str:
    """The key of the `n`-th file with the name `key`: `key` for the first, then `…-2.mp3`, `…-3.mp3`."""
    if n == 1:
        return key
    stem, dot, extension = key.rpartition(".")
    return f"{stem}-{n}{dot}{extension}"


def moved(key: str, prefix: str, new_prefix: str) -> str:
    """The key in another store of a file that has `key` under `prefix`; it stays where it is not under that."""
    prefix, new_prefix = prefix.rstrip("/"), new_prefix.rstrip("/")
    if prefix and not key.startswith(f"{prefix}/"):
        return key
    rest = key[len(prefix) + 1 :] if prefix else key
    return f"{new_prefix}/{rest}" if new_prefix else rest


def _escape(text: str, unsafe: re.Pattern[bytes]) -> str:
    data = unsafe.sub(lambda match: b"~%02X" % match[0][0], text.encode())
    return _LEADING_DOT.sub(b"~2E", data).decode("ascii")


def _folder(app_id: str, *escaped: str) -> str:
    name = "_".join((_escape(app_id, _UNSAFE_IN_ROOM), *escaped))
    if len(name) <= _FOLDER_BYTES:
        return name
    tail = f"~~{hashlib.sha256(name.encode('ascii')).hexdigest()}"
    return name[: _FOLDER_BYTES - len(tail)] + tail


def _number(segment_id: int, last_segment_id: int | None) -> str:
    return str(segment_id) if last_segment_id is None else f"{segment_id}-{last_segment_id}"


def name_stamp(time_ns: int) -> str:
    """How a start, UTC nanoseconds since 1970, stands in the names of files."""
    moment = datetime.fromtimestamp(time_ns // NANOSECONDS, UTC)
    return moment.astimezone(_VENDOR_ZONE).strftime("%Y-%m-%d-%H-%M-%S")


def _join(prefix: str, folder: str, name: str) -> str:
    prefix = prefix.rstrip("/")
    return f"{prefix}/{folder}/{name}" if prefix else f"{folder}/{name}"
