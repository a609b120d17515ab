"""From rows to a document and back: everything is in it, in one order, and large tasks are no trouble."""

import hashlib
import json
import time
from dataclasses import replace
from types import MappingProxyType

import pytest

from roomtape.v1 import event_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.database.gaps import GapRow, InterruptionRow
from roomtape_service.database.history import TaskHistory
from roomtape_service.database.participants import MuteRow, PresenceRow
from roomtape_service.database.recordings import RecordingRow
from roomtape_service.database.rooms import NO_EPOCH_NS, RoomRow
from roomtape_service.database.scopes import ScopeRow
from roomtape_service.database.segments import SegmentRow
from roomtape_service.database.tasks import TaskRow
from roomtape_service.manifest.content import build, is_finished
from roomtape_service.manifest.encoding import encode, show_time
from roomtape_service.manifest.findings import check_document, check_manifest
from roomtape_service.manifest.holes import holes_of
from roomtape_service.manifest.model import Manifest
from roomtape_service.manifest.reading import ManifestError, is_as_written, read_manifest
from roomtape_service.rules.naming import manifest_key
from tests.support.manifests import assert_valid

START_NS = 1_700_000_000 * NANOSECONDS + 123_456_789
TASK = "9223372036854775807"
MANY = 10_000


def segment_row(number: int, *, recording: str = "r1", user_id: str = "ada", joined: int = 0) -> SegmentRow:
    start_ns = START_NS + number * NANOSECONDS
    values = {
        "file_id": f"{recording}-{number}-{joined}",
        "recording_id": recording,
        "task_id": TASK,
        "app_id": "app",
        "room_id": "room",
        "kind": segment_pb2.RECORDING_KIND_SINGLE,
        "user_id": user_id,
        "segment_id": number,
        "container": media_pb2.CONTAINER_MP3,
        "codec": media_pb2.CODEC_MP3,
        "state": segment_pb2.SEGMENT_STATE_UPLOADED,
        "spool_path": None,
        "object_key": f"app_room_{user_id}/2023-11-15-06-13-20_{number}_audio.mp3{joined or ''}",
        "url": f"s3://bucket/{number}",
        "store": "s3:place:bucket",
        "start_ns": start_ns,
        "end_ns": start_ns + NANOSECONDS,
        "duration_ns": NANOSECONDS,
        "sample_rate": 48_000,
        "channels": 1,
        "sample_count": 48_000,
        "encoder_delay": 1105,
        "size_bytes": 8000,
        "sha256": hashlib.sha256(b"%d" % number).hexdigest(),
        "interrupted": False,
        "statistics": segment_pb2.FrameStatistics(recorded=50).SerializeToString(),
        "resume": json.dumps({f"{user_id}/session/mic": [50 * (number + 1), 7]}),
        "upload_attempts": 1,
        "next_attempt_ns": None,
        "expire_ns": None,
        "joined": joined,
    }
    fields = SegmentRow.__dataclass_fields__
    return SegmentRow(**{name: values[name] for name in fields})  # type: ignore[arg-type]


def history(segments: int = 2) -> TaskHistory:
    output = task_pb2.OutputSettings(
        single_containers=[media_pb2.CONTAINER_MP3],
        mixed_containers=[media_pb2.CONTAINER_MP3],
        audio_bitrate_bps=64_000,
    )
    output.segment_duration.FromNanoseconds(7200 * NANOSECONDS)
    output.retention.FromSeconds(86_400)
    subscription = task_pb2.Subscription(audio=task_pb2.UserFilter(block_user_ids=["bot"]))
    task = TaskRow(
        task_id=TASK,
        app_id="app",
        room_id="room",
        room_key="key",
        client_task_id="mine",
        state=task_pb2.TASK_STATE_FINALIZING,
        mode=task_pb2.RECORD_MODE_SINGLE,
        subscription=subscription.SerializeToString(),
        output=output.SerializeToString(),
        labels='{"b": "ü\\u0000\\"", "a": "1"}',
        stop_reason=task_pb2.STOP_REASON_API,
        start_ns=START_NS,
        stop_ns=START_NS + segments * NANOSECONDS,
        complete_ns=None,
        idle_since_ns=None,
        last_task_sequence=9,
    )
    tracks = room_pb2.Participant(
        tracks=[
            room_pb2.Track(
                track_id="mic",
                source=media_pb2.TRACK_SOURCE_MAIN,
                codec=media_pb2.CODEC_OPUS,
                sample_rate_hz=48_000,
                channels=2,
            )
        ]
    ).SerializeToString()
    end_ns = START_NS + segments * NANOSECONDS
    return TaskHistory(
        task=task,
        room=RoomRow("key", "app", "room", room_pb2.ROOM_CLOCK_ARRIVAL, START_NS - 5, START_NS - 5, None),
        scopes=[
            ScopeRow(TASK, START_NS, task_pb2.RECORD_MODE_MIXED, b""),
            ScopeRow(TASK, START_NS + 1, task_pb2.RECORD_MODE_SINGLE, subscription.SerializeToString()),
        ],
        presences=[
            PresenceRow("p0", "gone", "s", tracks, START_NS - 100, START_NS - 50),
            PresenceRow("p1", "ada", "session", tracks, START_NS - 10, end_ns),
            PresenceRow("p2", "a/da\n", "s", tracks, START_NS + 10, None),
            PresenceRow("p3", "late", "s", tracks, end_ns + 10, None),
        ],
        mutes=[
            MuteRow("p1", "mic", START_NS + 10, True),
            MuteRow("p1", "mic", START_NS + 20, False),
            MuteRow("p1", "mic", START_NS + 30, True),
        ],
        recordings=[
            RecordingRow("r1", TASK, "app", segment_pb2.RECORDING_KIND_SINGLE, "ada", START_NS, end_ns)
        ],
        segments=[segment_row(number) for number in range(segments)],
        joined=[segment_row(0, joined=2)],
        gaps=[GapRow(TASK, "r1", "ada", START_NS + 3, START_NS + 4, event_pb2.GAP_REASON_INTERRUPTED)],
        interruptions=[
            InterruptionRow(TASK, "r1", 0, event_pb2.INTERRUPTION_CAUSE_WORKER_LOST, START_NS + 5)
        ],
    )


def manifest_of(known: TaskHistory) -> Manifest:
    key = manifest_key("pre", "app", "room", TASK)
    return build(known, object_key=key, service_version="1.2.3", complete_ns=START_NS + 99)


def test_everything_is_in_it() -> None:
    manifest = manifest_of(history())
    assert manifest.object_key == f"pre/app_room/{TASK}/manifest.json"
    assert (manifest.state, manifest.complete, manifest.complete_ns) == ("COMPLETED", True, START_NS + 99)
    assert manifest.output.retention_seconds == 86_400
    assert [scope.start_ns for scope in manifest.scopes] == [None, START_NS + 1]
    assert manifest.scopes[1].block_user_ids == ("bot",)
    assert [who.user_id for who in manifest.participants] == ["ada", "a/da\n"]
    (mic,) = manifest.participants[0].tracks
    assert [(mute.start_ns - START_NS, mute.end_ns) for mute in mic.mutes] == [
        (10, START_NS + 20),
        (30, manifest.participants[0].leave_ns),
    ]
    (recording,) = manifest.recordings
    assert [segment.segment_id for segment in recording.segments] == [0, 1]
    assert [each.sequence for segment in recording.segments for each in segment.last_sequences] == [50, 100]
    assert recording.segments[0].last_sequences[0].track_id == "mic"
    assert [(each.first_segment_id, each.joined_segments) for each in recording.joined_files] == [(0, 2)]
    assert [gap.reason for gap in recording.gaps] == ["INTERRUPTED"]
    assert [each.cause for each in recording.interruptions] == ["WORKER_LOST"]


def test_what_is_read_is_what_was_written() -> None:
    manifest = manifest_of(history())
    data = encode(manifest)
    assert_valid(data)
    assert is_as_written(data)
    assert read_manifest(data) == manifest
    assert list(check_document(data)) == []
    assert list(check_manifest(manifest)) == []


def test_the_same_state_gives_the_same_bytes() -> None:
    known = history()
    mixed = replace(known, task=replace(known.task, labels='{"a": "1", "b": "ü\\u0000\\""}'))
    assert encode(manifest_of(known)) == encode(manifest_of(mixed))
    frozen = replace(manifest_of(known), labels=MappingProxyType(dict(manifest_of(known).labels)))
    assert encode(frozen) == encode(manifest_of(known))


def test_each_entry_is_a_line() -> None:
    lines = encode(manifest_of(history())).decode().splitlines()
    assert sum('"segment_id"' in line and '"files"' in line for line in lines) == 2
    assert json.loads(lines[-1].join(["{", ""]))["digest"]


def test_it_is_not_complete_before_all_is_stored() -> None:
    known = history()
    waiting = replace(known.segments[1], state=segment_pb2.SEGMENT_STATE_SPOOLED)
    running = replace(known.recordings[0], end_ns=None)
    for changed in (
        replace(known, segments=[known.segments[0], waiting]),
        replace(known, recordings=[running]),
        replace(known, task=replace(known.task, state=task_pb2.TASK_STATE_RECORDING)),
    ):
        assert not is_finished(changed)
        manifest = manifest_of(changed)
        assert not manifest.complete
        assert manifest.complete_ns is None
        assert_valid(encode(manifest))
    for state in (segment_pb2.SEGMENT_STATE_LOST, segment_pb2.SEGMENT_STATE_ABANDONED):
        given_up = replace(known.segments[1], state=state)
        assert is_finished(replace(known, segments=[known.segments[0], given_up]))


def test_a_room_to_which_nobody_came() -> None:
    known = history()
    room = replace(known.room, clock=room_pb2.ROOM_CLOCK_MEDIA, epoch_ns=NO_EPOCH_NS)
    empty = replace(known, room=room, recordings=[], segments=[], joined=[], gaps=[], interruptions=[])
    manifest = manifest_of(empty)
    assert manifest.complete
    assert manifest.room.epoch_ns is None
    assert read_manifest(encode(manifest)) == manifest
    assert_valid(encode(manifest))


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (START_NS, "2023-11-14T22:13:20.123456789Z"),
        (-62_135_596_800 * NANOSECONDS, "0001-01-01T00:00:00.000000000Z"),
        (9_000_000_000 * NANOSECONDS + 1, "2255-03-14T16:00:00.000000001Z"),
    ],
)
def test_times_of_any_year(time_ns: int, text: str) -> None:
    assert show_time(time_ns) == text
    manifest = replace(manifest_of(history()), start_ns=time_ns)
    assert read_manifest(encode(manifest)).start_ns == time_ns


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"version": 1', '"version": 2', "version 2"),
        ('"complete": true', '"complete": 1', "complete is missing or wrong"),
        ('"size_bytes": 8000', '"size_bytes": -1', "size_bytes is -1"),
        ('"size_bytes": 8000', '"size_bytes": true', "size_bytes is True"),
        ('"segment_id": 1,', "", "recordings 0, segments 1: segment_id is missing"),
        ('"start_time": "2023-11-14T22:13:21.1', '"start_time": "2023-13-14T22:13:21.1', "which is no time"),
        ('"scopes": [', '"scopes": 1, "was": [', "scopes is missing or wrong"),
        ('"room": {', '"room": 5, "was": {', "room is missing, or no JSON object"),
        (
            '"block_user_ids": ["bot"]',
            '"block_user_ids": [1]',
            "block_user_ids has something that is no text",
        ),
    ],
)
def test_what_is_wrong_is_said(old: str, new: str, told: str) -> None:
    text = encode(manifest_of(history())).decode()
    assert old in text
    with pytest.raises(ManifestError, match=told):
        read_manifest(text.replace(old, new, 1).encode())


def test_unknown_fields_are_left_out() -> None:
    text = encode(manifest_of(history())).decode()
    assert read_manifest(text.replace('"version": 1', '"new": [], "version": 1').encode()) == manifest_of(
        history()
    )


def test_many_segments_take_little_time_and_room() -> None:
    known = history(MANY)
    begun = time.process_time()
    data = encode(manifest_of(known))
    built = time.process_time()
    manifest = read_manifest(data)
    findings = list(check_manifest(manifest))
    holes = [hole for recording in manifest.recordings for hole in holes_of(manifest, recording)]
    read = time.process_time()
    assert (findings, holes) == ([], [])
    assert len(data) < MANY * 900
    # On one slow core; both are about a quarter of a second.
    assert built - begun < 3
    assert read - built < 6
