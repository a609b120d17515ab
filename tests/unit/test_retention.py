"""How long files are kept: which spans may be set, and when they end."""

import pytest
from google.protobuf.duration_pb2 import Duration

from roomtape.v1 import error_pb2, storage_pb2, task_pb2
from roomtape_service.errors import Refusal
from roomtape_service.rules.requests import check_output
from roomtape_service.rules.retention import MAX_RETENTION_DAYS, expire_ns
from roomtape_service.storage.settings import check_settings

DAY_SECONDS = 86_400
SECOND_NS = 1_000_000_000
END_NS = 1_790_000_000 * SECOND_NS

FITTING = [Duration(), Duration(seconds=DAY_SECONDS), Duration(seconds=MAX_RETENTION_DAYS * DAY_SECONDS)]
WRONG = [
    Duration(seconds=1),
    Duration(seconds=DAY_SECONDS - 1),
    Duration(seconds=DAY_SECONDS, nanos=1),
    Duration(seconds=-DAY_SECONDS),
    Duration(seconds=(MAX_RETENTION_DAYS + 1) * DAY_SECONDS),
    Duration(seconds=2**62, nanos=-5),
]


def _storage(retention: Duration | None) -> storage_pb2.StorageSettings:
    return storage_pb2.StorageSettings(disk=storage_pb2.DiskStore(folder="f"), retention=retention)


@pytest.mark.parametrize("retention", FITTING)
def test_whole_days_up_to_1500_are_taken(retention: Duration) -> None:
    check_output(task_pb2.OutputSettings(retention=retention))
    assert not check_settings(_storage(retention))


@pytest.mark.parametrize("retention", WRONG)
def test_everything_else_is_refused(retention: Duration) -> None:
    with pytest.raises(Refusal) as caught:
        check_output(task_pb2.OutputSettings(retention=retention))
    assert caught.value.reason == error_pb2.ERROR_REASON_INVALID_VALUE
    assert caught.value.fields[0].field == "output.retention"
    assert [violation.field for violation in check_settings(_storage(retention))] == ["storage.retention"]


@pytest.mark.parametrize(
    ("task_days", "application_days", "days"),
    [(None, None, None), (None, 0, None), (None, 7, 7), (0, 7, None), (3, 7, 3), (1500, None, 1500)],
)
def test_a_task_says_otherwise_than_its_application(
    task_days: int | None, application_days: int | None, days: int | None
) -> None:
    output, storage = task_pb2.OutputSettings(), storage_pb2.StorageSettings()
    if task_days is not None:
        output.retention.FromSeconds(task_days * DAY_SECONDS)
    if application_days is not None:
        storage.retention.FromSeconds(application_days * DAY_SECONDS)
    expected = None if days is None else END_NS + days * DAY_SECONDS * SECOND_NS
    assert expire_ns(END_NS, END_NS - SECOND_NS, output, storage) == expected


def test_old_media_is_kept_from_the_start_of_its_task() -> None:
    storage = _storage(Duration(seconds=DAY_SECONDS))
    expected = END_NS + DAY_SECONDS * SECOND_NS
    assert expire_ns(SECOND_NS, END_NS, task_pb2.OutputSettings(), storage) == expected
