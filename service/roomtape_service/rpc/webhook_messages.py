"""Webhooks and deliveries as requests give them and replies show them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from google.protobuf.timestamp_pb2 import Timestamp

from roomtape.v1 import error_pb2, event_pb2, storage_pb2, webhook_pb2
from roomtape_service.database.deliveries import DeliveryRow, Standing
from roomtape_service.database.webhooks import KeyRow, WebhookRow
from roomtape_service.rpc import validation
from roomtape_service.rpc.watch_requests import filter_problems
from roomtape_service.rules.webhooks import url_problem
from roomtape_service.webhooks.formats.table import format_of

__all__ = [
    "CHANGEABLE_PATHS",
    "UrlPolicy",
    "changed",
    "delivery_message",
    "etag",
    "field_problems",
    "key_problem",
    "new_webhook",
    "paths_set",
    "url_problem_of",
    "vendor_app_id_problem",
    "webhook_message",
]

CHANGEABLE_PATHS = (
    "display_name",
    "url",
    "filter",
    "retry",
    "concurrency",
    "enabled",
    "vendor_app_id",
    "string_room_ids",
)

_DEFAULT_CONCURRENCY = 8
_MAX_CONCURRENCY = 64
# What no key of any format reaches.
_MAX_KEY_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """What the operator allows: URLs without TLS, and addresses."""

    http: bool
    allows: Callable[[str], bool]


def field_problems(wanted: webhook_pb2.Webhook) -> Iterator[validation.Problem | None]:
    """What is wrong with the fields of a webhook but its URL and vendor_app_id, whatever its format is."""
    yield validation.app_id(wanted.app_id, "webhook.app_id")
    yield validation.display_name(wanted.display_name, "webhook.display_name")
    yield validation.enum(wanted.format, webhook_pb2.WebhookFormat, "webhook.format")
    yield from filter_problems(wanted.filter, "webhook.filter")
    yield validation.enum(wanted.retry, webhook_pb2.WebhookRetry, "webhook.retry")
    if not 0 <= wanted.concurrency <= _MAX_CONCURRENCY:
        yield validation.Problem(
            error_pb2.ERROR_REASON_INVALID_VALUE,
            "webhook.concurrency",
            f"{wanted.concurrency} is out of range; write 1 to {_MAX_CONCURRENCY}",
            {"value": str(wanted.concurrency), "limit": str(_MAX_CONCURRENCY)},
        )


def url_problem_of(url: str, policy: UrlPolicy) -> validation.Problem | None:
    """What is wrong with a webhook's URL."""
    if not url:
        return validation.present(
            False, "webhook.url", "where events go, such as https://hooks.example.com/events"
        )
    wrong = url_problem(url, http=policy.http, allows=policy.allows)
    if wrong is None:
        return None
    # Not repeated: it may hold a password.
    return validation.Problem(error_pb2.ERROR_REASON_INVALID_WEBHOOK_URL, "webhook.url", wrong)


def vendor_app_id_problem(
    wanted: str, app_id: str, kind: webhook_pb2.WebhookFormat.ValueType
) -> validation.Problem | None:
    """What is wrong with a webhook's vendor_app_id, or where it is empty with `app_id` in its place."""
    field = "webhook.vendor_app_id"
    if kind == webhook_pb2.WEBHOOK_FORMAT_ROOMTAPE:
        if not wanted:
            return None
        text = "is set, but format ROOMTAPE names the application by its own id; leave it out"
        return validation.Problem(error_pb2.ERROR_REASON_INVALID_VALUE, field, text)
    try:
        format_of(kind).check_app_id(wanted or app_id)
    except ValueError as error:
        shown = repr(wanted or app_id)
        return validation.Problem(
            error_pb2.ERROR_REASON_INVALID_VALUE,
            field,
            f"{error}; set it to the application's number with the vendor",
            {"value": shown},
        )
    return None


def key_problem(
    key: storage_pb2.Secret, kind: webhook_pb2.WebhookFormat.ValueType
) -> validation.Problem | None:
    """What is wrong with a key that a caller chose; None also where there is none."""
    try:
        if len(key.value) > _MAX_KEY_CHARACTERS:
            raise ValueError(f"it has {len(key.value)} characters")
        if key.value:
            format_of(kind).check_key(key.value)
    except ValueError as error:
        text = f"can't be a key of this format: {error}; or leave it out, then the server makes one"
        return validation.Problem(error_pb2.ERROR_REASON_INVALID_WEBHOOK_KEY, "key", text)
    return None


def new_webhook(wanted: webhook_pb2.Webhook, webhook_id: str) -> WebhookRow:
    """The row of a webhook that a request asks for, with defaults filled in."""
    return WebhookRow(
        webhook_id=webhook_id,
        app_id=wanted.app_id,
        display_name=wanted.display_name,
        url=wanted.url,
        format=wanted.format or webhook_pb2.WEBHOOK_FORMAT_ROOMTAPE,
        vendor_app_id=wanted.vendor_app_id,
        filter=wanted.filter.SerializeToString(deterministic=True),
        retry=wanted.retry or webhook_pb2.WEBHOOK_RETRY_ROOMTAPE,
        concurrency=wanted.concurrency or _DEFAULT_CONCURRENCY,
        is_enabled=wanted.enabled if wanted.HasField("enabled") else True,
        has_string_room_ids=wanted.string_room_ids,
    )


def paths_set(wanted: webhook_pb2.Webhook) -> frozenset[str]:
    """What an update without a mask changes."""
    return frozenset(field.name for field, _ in wanted.ListFields()) & frozenset(CHANGEABLE_PATHS)


def changed(stored: WebhookRow, wanted: webhook_pb2.Webhook, paths: frozenset[str]) -> WebhookRow:
    """The row with the fields at `paths` as a request for a new webhook would have them."""
    new = new_webhook(wanted, stored.webhook_id)
    return replace(
        stored,
        display_name=new.display_name if "display_name" in paths else stored.display_name,
        url=new.url if "url" in paths else stored.url,
        filter=new.filter if "filter" in paths else stored.filter,
        retry=new.retry if "retry" in paths else stored.retry,
        concurrency=new.concurrency if "concurrency" in paths else stored.concurrency,
        is_enabled=new.is_enabled if "enabled" in paths else stored.is_enabled,
        vendor_app_id=new.vendor_app_id if "vendor_app_id" in paths else stored.vendor_app_id,
        has_string_room_ids=(
            new.has_string_room_ids if "string_room_ids" in paths else stored.has_string_room_ids
        ),
    )


def etag(row: WebhookRow) -> str:
    """What changes with every update."""
    return f"r{row.revision}"


def webhook_message(row: WebhookRow, keys: Sequence[KeyRow], standing: Standing) -> webhook_pb2.Webhook:
    """As replies show it; `keys` newest first."""
    message = webhook_pb2.Webhook(
        webhook_id=row.webhook_id,
        app_id=row.app_id,
        display_name=row.display_name,
        url=row.url,
        format=row.format,
        vendor_app_id=row.vendor_app_id,
        filter=row.event_filter,
        retry=row.retry,
        concurrency=row.concurrency,
        enabled=row.is_enabled,
        string_room_ids=row.has_string_room_ids,
        keys=[
            webhook_pb2.WebhookKey(
                key_id=key.key_id, create_time=_time(key.create_ns), expire_time=_time(key.expire_ns)
            )
            for key in keys
        ],
        create_time=_time(row.create_ns),
        update_time=_time(row.update_ns),
        etag=etag(row),
        status=webhook_pb2.WebhookStatus(
            pending_count=standing.pending,
            dead_count=standing.dead,
            last_success_time=_time(row.last_success_ns),
            last_failure_time=_time(row.last_failure_ns),
            last_error=row.last_error,
            oldest_pending_time=_time(standing.oldest_pending_ns),
        ),
    )
    return message


def delivery_message(row: DeliveryRow) -> webhook_pb2.WebhookDelivery:
    """As replies show it."""
    return webhook_pb2.WebhookDelivery(
        delivery_id=row.delivery_id,
        webhook_id=row.webhook_id,
        sequence=row.sequence,
        task_id=row.task_id,
        type=event_pb2.EventType.ValueType(row.type),
        state=webhook_pb2.WebhookDeliveryState.ValueType(row.state),
        attempts=row.attempts,
        event_time=_time(row.event_ns),
        last_attempt_time=_time(row.last_attempt_ns),
        next_attempt_time=_time(row.next_ns),
        last_status_code=row.last_status,
        last_error=row.last_error,
    )


def _time(time_ns: int | None) -> Timestamp | None:
    if time_ns is None:
        return None
    time = Timestamp()
    time.FromNanoseconds(time_ns)
    return time
