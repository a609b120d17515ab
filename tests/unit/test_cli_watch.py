"""What people see of many events: lines that can be read, and a board that says how things stand."""

from collections.abc import Sequence

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from roomtape.client import Snapshot
from roomtape.v1 import event_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from roomtape_service.cli.event_lines import EventLines
from roomtape_service.cli.watch_board import Board

SECOND = 1_000_000_000
START = Timestamp(seconds=1_700_000_000)


def joined(user_id: str, count: int, room_id: str = "room") -> event_pb2.Event:
    return event_pb2.Event(
        sequence=count,
        type=event_pb2.EVENT_TYPE_PARTICIPANT_JOINED,
        room_id=room_id,
        participant=event_pb2.ParticipantDetail(user_id=user_id, participant_count=count, track_count=count),
    )


def warned(task_id: str, text: str) -> event_pb2.Event:
    return event_pb2.Event(
        type=event_pb2.EVENT_TYPE_WARNING,
        room_id="room",
        task_id=task_id,
        warning=event_pb2.WarningDetail(message=text),
    )


def told(lines: EventLines) -> list[str]:
    """Without time and sequence."""
    return [line.text.split(maxsplit=2)[2] for line in lines.take()]


def test_few_events_are_lines_of_their_own() -> None:
    lines = EventLines()
    for number in range(1, 5):
        lines.add(joined(f"user{number}", number))
    assert told(lines) == [
        f"participant-joined      room  user{number}  {number} in the room" for number in range(1, 5)
    ]
    assert lines.take() == []


def test_of_many_events_those_that_are_alike_are_one_line() -> None:
    lines = EventLines()
    for number in range(1, 101):
        lines.add(joined(f"user{number}", number))
        if number % 50 == 0:
            lines.add(joined("zoe", number, "other"))
            lines.add(warned(str(number), "the disk"))
    assert told(lines) == [
        "participant-joined × 100  room  user1, user2, user3 and 97 more",
        "participant-joined × 2  other  zoe, zoe",
        "warning                 room  50  : the disk",
        "warning                 room  100  : the disk",
    ]


def shown(board: Board, seconds: float = 90.0, rows: int = 20) -> list[str]:
    console = Console(width=160, record=True, file=None, color_system=None)
    with console.capture() as capture:
        console.print(board.render(START.ToNanoseconds() + round(seconds * SECOND), rows))
    return [" ".join(line.split()) for line in capture.get().splitlines() if line.strip()]


def task(
    task_id: str = "1", state: task_pb2.TaskState.ValueType = task_pb2.TASK_STATE_RECORDING
) -> task_pb2.Task:
    return task_pb2.Task(task_id=task_id, room_id="room", state=state, start_time=START)


def segment(
    number: int, state: segment_pb2.SegmentState.ValueType, size_bytes: int = 0
) -> segment_pb2.Segment:
    return segment_pb2.Segment(
        file_id=f"f{number}",
        recording_id="r",
        task_id="1",
        room_id="room",
        segment_id=number,
        state=state,
        size_bytes=size_bytes,
    )


def of_segment(
    event_type: event_pb2.EventType.ValueType, message: segment_pb2.Segment, sent_bytes: int = 0
) -> event_pb2.Event:
    detail = event_pb2.SegmentDetail(segment=message, sent_bytes=sent_bytes)
    return event_pb2.Event(type=event_type, task_id="1", room_id="room", segment=detail)


def of_task(message: task_pb2.Task) -> event_pb2.Event:
    detail = event_pb2.TaskDetail(task=message)
    return event_pb2.Event(
        type=event_pb2.EVENT_TYPE_TASK_STATE_CHANGED,
        task_id=message.task_id,
        room_id=message.room_id,
        task=detail,
    )


def snapshot(items: Sequence[event_pb2.SnapshotItem]) -> Snapshot:
    return Snapshot(items, 7, "token")


def test_a_board_goes_on_from_what_there_was() -> None:
    board = Board()
    tracks = [room_pb2.Track(track_id="mic", source=media_pb2.TRACK_SOURCE_MAIN, muted=True)]
    ada = room_pb2.Participant(user_id="ada", tracks=tracks)
    recording = segment_pb2.Recording(recording_id="r", task_id="1", start_time=START)
    board.begin(
        snapshot(
            [
                event_pb2.SnapshotItem(room=room_pb2.Room(room_id="room")),
                event_pb2.SnapshotItem(
                    participant=event_pb2.SnapshotParticipant(room_id="room", participant=ada)
                ),
                event_pb2.SnapshotItem(task=task()),
                event_pb2.SnapshotItem(recording=recording),
                event_pb2.SnapshotItem(segment=segment(0, segment_pb2.SEGMENT_STATE_RECORDING)),
            ]
        )
    )
    assert shown(board)[1:] == [
        "1 room recording 1:30 1, 1 of 1 muted 1 1 growing",
        "1 room, 1 user, 0 events, the newest 7",
    ]
    board.take(joined("ben", 2))
    size = 100 << 20
    for event in (
        of_segment(
            event_pb2.EVENT_TYPE_SEGMENT_COMPLETED, segment(0, segment_pb2.SEGMENT_STATE_SPOOLED, size)
        ),
        of_segment(
            event_pb2.EVENT_TYPE_SEGMENT_UPLOAD_PROGRESS,
            segment(0, segment_pb2.SEGMENT_STATE_UPLOADING, size),
            40 << 20,
        ),
        of_segment(event_pb2.EVENT_TYPE_SEGMENT_STARTED, segment(1, segment_pb2.SEGMENT_STATE_RECORDING)),
        warned("1", "look"),
    ):
        board.take(event)
    assert shown(board)[1] == (
        "1 room recording 1:30 2 1 1 growing, 1 on their way (40.0 MiB of 100.0 MiB) 1"
    )
    board.take(
        of_segment(
            event_pb2.EVENT_TYPE_SEGMENT_UPLOADED, segment(0, segment_pb2.SEGMENT_STATE_UPLOADED, size)
        )
    )
    recording.end_time.CopyFrom(START)
    board.take(
        event_pb2.Event(
            type=event_pb2.EVENT_TYPE_RECORDING_ENDED,
            task_id="1",
            recording=event_pb2.RecordingDetail(recording=recording),
        )
    )
    board.take(
        event_pb2.Event(type=event_pb2.EVENT_TYPE_ROOM_CLOSED, room_id="room", room=event_pb2.RoomDetail())
    )
    board.take(of_task(task(state=task_pb2.TASK_STATE_FINALIZING)))
    assert shown(board)[1] == "1 room finalizing 1:30 0 1 growing, 1 stored 1"


@pytest.mark.parametrize("rows", [3, 10, 40])
def test_a_board_keeps_to_its_rows(rows: int) -> None:
    board = Board()
    for number in range(30):
        board.take(of_task(task(str(number))))
    assert len(shown(board, rows=rows)) <= rows
    assert shown(board, rows=40)[-1].startswith("0 rooms")
    assert shown(board, rows=10)[-1].startswith("and 22 more tasks")
    for number in range(30):
        board.take(of_task(task(str(number), task_pb2.TASK_STATE_COMPLETED)))
    # Of those that have ended the newest are seen for a while.
    assert len(shown(board, rows=40)) == 3 + 2
