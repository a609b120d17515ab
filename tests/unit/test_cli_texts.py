"""Times, spans, sizes and names as people read and write them."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from roomtape.v1 import event_pb2, media_pb2, storage_pb2, task_pb2
from roomtape_service.cli import enums
from roomtape_service.cli.texts import read_span, read_time, show_clock, show_size, show_span, show_time

SECOND_NS = 1_000_000_000


@pytest.mark.parametrize(
    ("span_ns", "text"),
    [
        (0, "0.000 s"),
        (8_460_000_000, "8.460 s"),
        (59_999_000_000, "59.999 s"),
        (60 * SECOND_NS, "1:00.0"),
        (725 * SECOND_NS + 300_000_000, "12:05.3"),
        (3600 * SECOND_NS - 1, "1:00:00.0"),
        (3 * 3600 * SECOND_NS + 62 * SECOND_NS, "3:01:02.0"),
    ],
)
def test_spans_are_shown(span_ns: int, text: str) -> None:
    assert show_span(span_ns) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("250ms", 0.25), ("1.5h", 5400), ("15m", 900), ("7d", 604_800), (" 2h ", 7200)],
)
def test_spans_are_read(text: str, seconds: float) -> None:
    assert read_span(text) == Duration(seconds=int(seconds), nanos=round(seconds % 1 * SECOND_NS))


@pytest.mark.parametrize("text", ["", "h", "-3s", "3 weeks", "1:30", "1e3"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no span; write 90s, 15m, 1\.5h or 7d"):
        read_span(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 1024**2, "5.0 MiB"), (3 * 1024**4, "3072.0 GiB")],
)
def test_sizes_are_shown(size: int, text: str) -> None:
    assert show_size(size) == text


@pytest.mark.parametrize(
    "text", ["2026-01-31T12:00:00Z", "2026-01-31T20:00+08:00", "2026-01-31 12:00:00.000+00:00"]
)
def test_times_are_read(text: str) -> None:
    assert read_time(text).ToJsonString() == "2026-01-31T12:00:00Z"


def test_a_time_without_an_offset_is_of_this_zone() -> None:
    time = read_time("2026-01-31T12:00:00.250")
    assert show_time(time) == "2026-01-31 12:00:00.250"
    assert show_clock(time) == "12:00:00.250"
    assert show_time(Timestamp()) == ""


def test_what_is_no_time() -> None:
    with pytest.raises(ValueError, match="'noon' is no time; write 2026"):
        read_time("noon")


def test_enums_have_short_names() -> None:
    assert enums.names(task_pb2.RecordMode.DESCRIPTOR) == ["single", "mixed", "single-and-mixed"]
    assert enums.names(media_pb2.Container.DESCRIPTOR) == ["mp3", "ogg", "wav", "aac", "m4a"]
    assert enums.names(storage_pb2.StorageVendor.DESCRIPTOR) == ["s3", "cos", "tos", "oss", "obs", "kodo"]


@pytest.mark.parametrize("name", ["single-and-mixed", "SINGLE_AND_MIXED", "Single-And_Mixed"])
def test_enums_are_read(name: str) -> None:
    modes = task_pb2.RecordMode.DESCRIPTOR
    assert enums.number(modes, name) == task_pb2.RECORD_MODE_SINGLE_AND_MIXED
    assert enums.label(modes, task_pb2.RECORD_MODE_SINGLE_AND_MIXED) == "single-and-mixed"


@pytest.mark.parametrize("name", ["", "unspecified", "3", "both"])
def test_what_is_no_value(name: str) -> None:
    with pytest.raises(ValueError, match="is none of single, mixed, single-and-mixed"):
        enums.number(task_pb2.RecordMode.DESCRIPTOR, name)


def test_every_event_type_has_a_name_and_newer_ones_a_number() -> None:
    types = event_pb2.EventType.DESCRIPTOR
    for value in event_pb2.EventType.values():
        name = enums.label(types, value)
        assert enums.number(types, name) == value if value else name == ""
    assert enums.label(types, 999) == "999"
