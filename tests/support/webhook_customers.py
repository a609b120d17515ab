"""How the vendors' customers read callbacks today: signature first, then typed fields, by the vendors' own pages.

Nothing of the service is used here. Each reader raises AssertionError for what its customer could not read.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["READERS", "Told", "read_gme", "read_trtc", "read_trtc_classic", "read_volc"]

Told = tuple[str, Mapping[str, Any]]
"""The vendor's number or name of the event, and what it carries."""

Shape = type | Mapping[str, Any] | tuple[type, ...] | list[Any]
"""A type, several types, an object of exactly these fields, or a list of one shape."""

_ROOM_ID = (int, str)
_INFO: dict[str, Any] = {"RoomId": _ROOM_ID, "EventTs": int, "EventMsTs": int}
_USER = _INFO | {"UserId": str}
_FILE = {"FileName": str, "UserId": str, "TrackType": str}
_TIMES = {"StartTimeStamp": int, "EndTimeStamp": int}
_VOD = {"UserId": str, "TrackType": str, "MediaId": str, "FileId": str, "VideoUrl": str, "CacheFile": str}

# trtc.io/document/39558, its examples of 101 to 206.
_ROOM_AND_MEDIA: Mapping[int, Shape] = {
    101: _USER,
    102: _INFO,
    103: _USER | {"Role": int, "TerminalType": int, "UserType": int, "Reason": int},
    104: _USER | {"Role": int, "Reason": int},
    203: _USER,
    204: _USER | {"Reason": int},
    205: _USER,
    206: _USER | {"Reason": int},
}
# trtc.io/document/54914. Of 305 it says LeaveCode, the page of 2022 Status.
_PAYLOADS: Mapping[int, Shape] = {
    301: {"Status": int},
    302: {"LeaveCode": int},
    303: {"Status": int},
    305: {"Status": int, "LeaveCode": int},
    306: {"Status": int},
    307: _FILE | {"BeginTimeStamp": str},
    308: {"Code": str, "Message": str},
    310: {"Status": int, "FileList": [str], "FileMessage": [_FILE | {"MediaId": str} | _TIMES]},
    311: {"Status": int, "TencentVod": _VOD | _TIMES},
    312: {"Status": int},
}
# docs.byteplus.com 75125, and GetRecordTask (2023-11-01) for the files.
_VOLC_TASK = {"AppId": str, "BusinessId": str, "RoomId": str, "TaskId": str, "Code": int, "ErrorMessage": str}
_VOLC_FILE = {
    "Vid": str,
    "ObjectKey": str,
    "Duration": int,
    "Size": int,
    "StartTime": int,
    "StreamList": [{"Index": int, "UserId": str, "StreamType": int}],
    "AudioCodec": str,
    "VideoCodec": str,
    "VideoWidth": int,
    "VideoHeight": int,
}
_VOLC_FILES = _VOLC_TASK | {"RecordFileList": [_VOLC_FILE]}
_VOLC_USER = {"RoomId": str, "UserId": str, "DeviceType": str, "Timestamp": int}
_VOLC_DATA: Mapping[str, Shape] = {
    "RoomDestroy": {"RoomId": str, "Timestamp": int},
    "UserJoinRoom": _VOLC_USER,
    "UserLeaveRoom": _VOLC_USER | {"Reason": str},
    "RecordStarted": _VOLC_TASK,
    "RecordStopped": _VOLC_FILES,
    "RecordUploadStarted": _VOLC_FILES,
    "RecordUploadProcessing": _VOLC_FILES,
    "RecordUploadDone": _VOLC_FILES,
}
# Tencent Cloud 267/47026.
_CLASSIC = {
    **dict.fromkeys(
        ("event_type", "appid", "start_time", "start_time_usec", "end_time", "end_time_usec", "duration"), int
    ),
    **dict.fromkeys(("file_size", "media_start_time", "record_bps", "t"), int),
    **dict.fromkeys(("app", "appname", "stream_id", "channel_id", "stream_param", "file_id", "task_id"), str),
    **dict.fromkeys(("record_file_id", "file_format", "video_url", "callback_ext", "sign"), str),
}
# tencentcloud.com 607/53749.
_GME = {
    "BizID": int,
    "RoomID": str,
    "UserID": str,
    "TaskID": int,
    "RecordMode": int,
    "Timestamp": int,
    "EventType": int,
    "Detail": {"SeqNo": int, "FileName": str},
}


def read_gme(headers: Mapping[str, str], body: bytes, key: str) -> Told:
    """Header `Signature`: base 64 of HMAC-SHA1 over the body."""
    assert set(headers) == {"Content-Type", "Signature"}
    assert headers["Signature"] == base64.b64encode(hmac.digest(key.encode(), body, "sha1")).decode()
    content = _read(body, _GME)
    return str(content["EventType"]), content


def read_trtc(headers: Mapping[str, str], body: bytes, key: str) -> Told:
    """Header `Sign`: base 64 of HMAC-SHA256 over the body; `SdkAppId` a number."""
    assert set(headers) == {"Content-Type", "Sign", "SdkAppId"}
    assert headers["Sign"] == base64.b64encode(hmac.digest(key.encode(), body, "sha256")).decode()
    assert headers["SdkAppId"].isdecimal()
    content = json.loads(body)
    number = content["EventType"]
    info = _ROOM_AND_MEDIA.get(number) or _USER | {"TaskId": str, "Payload": _PAYLOADS[number]}
    if number == 311 and content["EventInfo"]["Payload"]["Status"]:
        info = _USER | {"TaskId": str, "Payload": {"Status": int, "Errmsg": str, "TencentVod": _VOD | _TIMES}}
    _read(body, {"EventGroupId": int, "EventType": int, "CallbackTs": int, "EventInfo": info})
    assert content["EventGroupId"] == number // 100
    assert content["EventInfo"]["EventTs"] == content["EventInfo"]["EventMsTs"] // 1_000
    return str(number), content


def read_trtc_classic(headers: Mapping[str, str], body: bytes, key: str) -> Told:
    """`sign` in the body: MD5 of the key and of `t`."""
    assert set(headers) == {"Content-Type"}
    content = _read(body, _CLASSIC)
    assert content["sign"] == hashlib.md5(f"{key}{content['t']}".encode(), usedforsecurity=False).hexdigest()
    return str(content["event_type"]), content


def read_volc(headers: Mapping[str, str], body: bytes, key: str) -> Told:
    """`Signature` in the body: SHA-256 of all other values and the key, sorted; `EventData` is JSON in a string."""
    assert set(headers) == {"Content-Type"}
    names = ("EventType", "EventData", "EventTime", "EventId", "AppId", "Version", "Nonce")
    content = _read(body, dict.fromkeys((*names, "Signature"), str))
    values = sorted([*(content[name] for name in names), key])
    assert content["Signature"] == hashlib.sha256("".join(values).encode()).hexdigest()
    assert len(content["Nonce"]) == 4
    assert content["Nonce"].isdecimal()
    return content["EventType"], _read(content["EventData"].encode(), _VOLC_DATA[content["EventType"]])


READERS: Mapping[str, Callable[[Mapping[str, str], bytes, str], Told]] = {
    "gme": read_gme,
    "trtc": read_trtc,
    "trtc-classic": read_trtc_classic,
    "volc": read_volc,
}


def _read(body: bytes, shape: Shape) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(body.decode("utf-8"))
    _check(content, shape, "body")
    return content


def _check(value: object, shape: Shape, path: str) -> None:
    match shape:
        case dict():
            assert isinstance(value, dict), path
            assert value.keys() == shape.keys(), path
            for name, inner in shape.items():
                _check(value[name], inner, f"{path}.{name}")
        case list():
            assert isinstance(value, list), path
            for each in value:
                _check(each, shape[0], f"{path}[]")
        case type() | tuple():
            assert isinstance(value, shape), path
            assert not isinstance(value, bool), path
