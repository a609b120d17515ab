"""FileService: requests that are refused."""

from collections.abc import Sequence

from google.protobuf import duration_pb2, timestamp_pb2

from roomtape.v1 import file_pb2, media_pb2
from tests.integration.bad_input.cases import Case, case

__all__ = ["CASES"]

_FILES = "FileService.ListFiles"
_PLAY = "FileService.CreatePlaybackUrl"
_DELETE = "FileService.DeleteFile"
_ABANDON = "FileService.AbandonFile"
_JOIN = "FileService.JoinSegments"
_MANIFEST = "FileService.GetManifest"
_UNKNOWN = 99


def _manifest(
    app_id: str = "app", *, task_id: str = "1", seconds: int | None = None
) -> file_pb2.GetManifestRequest:
    lifetime = None if seconds is None else duration_pb2.Duration(seconds=seconds)
    return file_pb2.GetManifestRequest(app_id=app_id, task_id=task_id, lifetime=lifetime)


def _join(
    app_id: str = "app",
    *,
    recording_id: str = "nothing",
    container: int = 0,
    first: int = 0,
    last: int | None = None,
    request_id: str = "",
) -> file_pb2.JoinSegmentsRequest:
    return file_pb2.JoinSegmentsRequest(
        app_id=app_id,
        recording_id=recording_id,
        container=media_pb2.Container.ValueType(container),
        first_segment_id=first,
        last_segment_id=last,
        request_id=request_id,
    )


def _of_file(
    rpc: str,
    request: type[file_pb2.GetFileRequest]
    | type[file_pb2.CreatePlaybackUrlRequest]
    | type[file_pb2.DeleteFileRequest]
    | type[file_pb2.AbandonFileRequest],
) -> Sequence[Case]:
    return (
        case(rpc, "no file", lambda _: request(app_id="app"), "FIELD_REQUIRED", "file_id"),
        case(
            rpc, "file with a space", lambda _: request(app_id="app", file_id="a b"), "INVALID_ID", "file_id"
        ),
        case(
            rpc,
            "unknown file",
            lambda _: request(app_id="app", file_id="../../etc/passwd"),
            "FILE_NOT_FOUND",
            metadata=lambda _: {"fileId": "../../etc/passwd"},
        ),
        case(
            rpc,
            "file of another application",
            lambda world: request(app_id="gme", file_id=world.file_id),
            "FILE_NOT_FOUND",
        ),
    )


CASES = (
    *_of_file("FileService.GetFile", file_pb2.GetFileRequest),
    *_of_file(_PLAY, file_pb2.CreatePlaybackUrlRequest),
    case(
        _PLAY,
        "file that is still written",
        lambda world: file_pb2.CreatePlaybackUrlRequest(app_id="app", file_id=world.file_id),
        "FILE_NOT_STORED",
        metadata=lambda world: {"fileId": world.file_id},
    ),
    case(
        _PLAY,
        "for eight days",
        lambda world: file_pb2.CreatePlaybackUrlRequest(
            app_id="app", file_id=world.file_id, lifetime=duration_pb2.Duration(seconds=8 * 86_400)
        ),
        "INVALID_VALUE",
        "lifetime",
    ),
    case(
        _PLAY,
        "for no time",
        lambda world: file_pb2.CreatePlaybackUrlRequest(
            app_id="app", file_id=world.file_id, lifetime=duration_pb2.Duration()
        ),
        "INVALID_VALUE",
        "lifetime",
    ),
    *_of_file(_DELETE, file_pb2.DeleteFileRequest),
    case(
        _DELETE,
        "file that is still written",
        lambda world: file_pb2.DeleteFileRequest(app_id="app", file_id=world.file_id),
        "FILE_NOT_STORED",
        metadata=lambda world: {"fileId": world.file_id},
    ),
    case(
        _DELETE,
        "over-long request id",
        lambda world: file_pb2.DeleteFileRequest(app_id="app", file_id=world.file_id, request_id="r" * 37),
        "INVALID_ID",
        "request_id",
    ),
    *_of_file(_ABANDON, file_pb2.AbandonFileRequest),
    case(
        _ABANDON,
        "file that is still written",
        lambda world: file_pb2.AbandonFileRequest(app_id="app", file_id=world.file_id),
        "FILE_NOT_ABANDONABLE",
        metadata=lambda world: {"fileId": world.file_id, "state": "RECORDING"},
    ),
    case(_JOIN, "no recording", lambda _: _join(recording_id=""), "FIELD_REQUIRED", "recording_id"),
    case(_JOIN, "recording with a space", lambda _: _join(recording_id="a b"), "INVALID_ID", "recording_id"),
    case(
        _JOIN,
        "unknown recording",
        lambda _: _join(recording_id="../x"),
        "RECORDING_NOT_FOUND",
        metadata=lambda _: {"recordingId": "../x"},
    ),
    case(
        _JOIN,
        "recording of another application",
        lambda world: _join("gme", recording_id=world.recording_id),
        "RECORDING_NOT_FOUND",
    ),
    case(
        _JOIN,
        "unknown container",
        lambda world: _join(recording_id=world.recording_id, container=_UNKNOWN),
        "INVALID_CONTAINER",
        "container",
        metadata=lambda _: {"value": "99"},
    ),
    case(
        _JOIN,
        "container that was not recorded",
        lambda world: _join(recording_id=world.recording_id, container=media_pb2.CONTAINER_MP3),
        "INVALID_CONTAINER",
        "container",
    ),
    case(
        _JOIN,
        "one segment that is still written",
        lambda world: _join(recording_id=world.recording_id, container=media_pb2.CONTAINER_WAV),
        "SEGMENTS_NOT_JOINABLE",
        metadata=lambda world: {"recordingId": world.recording_id, "segmentId": "0"},
    ),
    case(
        _JOIN,
        "segments that are not there",
        lambda world: _join(
            recording_id=world.recording_id, container=media_pb2.CONTAINER_WAV, first=5, last=2**31 - 1
        ),
        "SEGMENTS_NOT_JOINABLE",
        metadata=lambda world: {"recordingId": world.recording_id, "segmentId": "5"},
    ),
    case(
        _JOIN,
        "negative segments",
        lambda world: _join(recording_id=world.recording_id, first=-1, last=-(2**31)),
        "INVALID_VALUE",
        "first_segment_id",
        "last_segment_id",
    ),
    case(_MANIFEST, "no application", lambda _: _manifest(""), "FIELD_REQUIRED", "app_id"),
    case(_MANIFEST, "unknown application", lambda _: _manifest("nobody"), "APPLICATION_NOT_FOUND"),
    case(_MANIFEST, "no task", lambda _: _manifest(task_id=""), "FIELD_REQUIRED", "task_id"),
    case(_MANIFEST, "a task id that is none", lambda _: _manifest(task_id="../1"), "INVALID_ID", "task_id"),
    case(
        _MANIFEST,
        "unknown task",
        lambda _: _manifest(task_id="1"),
        "TASK_NOT_FOUND",
        metadata=lambda _: {"taskId": "1"},
    ),
    case(
        _MANIFEST,
        "task of another application",
        lambda world: _manifest(task_id=world.foreign_task_id),
        "TASK_NOT_FOUND",
    ),
    case(
        _MANIFEST,
        "for eight days",
        lambda world: _manifest(task_id=world.ended_task_id, seconds=8 * 86_400),
        "INVALID_VALUE",
        "lifetime",
    ),
    case(
        _MANIFEST,
        "for no time",
        lambda world: _manifest(task_id=world.ended_task_id, seconds=0),
        "INVALID_VALUE",
        "lifetime",
    ),
    case(
        _FILES,
        "unknown application",
        lambda _: file_pb2.ListFilesRequest(app_id="nobody"),
        "APPLICATION_NOT_FOUND",
    ),
    case(
        _FILES,
        "user with a control",
        lambda _: file_pb2.ListFilesRequest(app_id="app", user_id="a\tb"),
        "INVALID_ID",
        "user_id",
    ),
    case(
        _FILES,
        "a label key with a space",
        lambda _: file_pb2.ListFilesRequest(app_id="app", labels={"a b": "c"}),
        "INVALID_VALUE",
        "labels",
    ),
    case(
        _FILES,
        "33 labels",
        lambda _: file_pb2.ListFilesRequest(app_id="app", labels={f"k{number}": "" for number in range(33)}),
        "INVALID_VALUE",
        "labels",
    ),
    case(
        _FILES,
        "over-long prefix",
        lambda _: file_pb2.ListFilesRequest(app_id="app", key_prefix="k" * 1025),
        "INVALID_VALUE",
        "key_prefix",
    ),
    case(
        _FILES,
        "a time that is none",
        lambda _: file_pb2.ListFilesRequest(app_id="app", start_time=timestamp_pb2.Timestamp(nanos=-1)),
        "INVALID_VALUE",
        "start_time",
    ),
    case(
        _FILES,
        "a token that is none",
        lambda _: file_pb2.ListFilesRequest(app_id="app", page_token="..."),
        "INVALID_PAGE_TOKEN",
        "page_token",
    ),
)
