"""WebhookService: requests that are refused."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from google.protobuf import duration_pb2, field_mask_pb2
from google.protobuf.message import Message

from roomtape.v1 import event_pb2, storage_pb2, webhook_pb2
from tests.integration.bad_input.cases import Case, case
from tests.integration.bad_input.world import World

__all__ = ["CASES", "URL"]

URL = "https://hooks.example.com/events"

_CREATE = "WebhookService.CreateWebhook"
_GET = "WebhookService.GetWebhook"
_UPDATE = "WebhookService.UpdateWebhook"
_DELETE = "WebhookService.DeleteWebhook"
_LIST = "WebhookService.ListWebhooks"
_ROTATE = "WebhookService.RotateWebhookKey"
_DELIVERIES = "WebhookService.ListWebhookDeliveries"
_RESEND = "WebhookService.ResendWebhookDeliveries"
_UNKNOWN = 99
_GME = webhook_pb2.WEBHOOK_FORMAT_GME
_VOLC = webhook_pb2.WEBHOOK_FORMAT_VOLC
# 23 bytes, of the 24 that are the least.
_SHORT_KEY = "whsec_" + "A" * 31 + "="


class _Request(Protocol):
    """Makes a request about a webhook."""

    def __call__(self, webhook_id: str, /, *, app_id: str = "app") -> Message: ...


def _create(
    app_id: str = "app",
    url: str = URL,
    *,
    name: str = "",
    kind: int = 0,
    retry: int = 0,
    concurrency: int = 0,
    vendor_app_id: str = "",
    wanted: event_pb2.EventFilter | None = None,
    key: str = "",
    request_id: str = "",
) -> webhook_pb2.CreateWebhookRequest:
    return webhook_pb2.CreateWebhookRequest(
        webhook=webhook_pb2.Webhook(
            app_id=app_id,
            url=url,
            display_name=name,
            format=webhook_pb2.WebhookFormat.ValueType(kind),
            retry=webhook_pb2.WebhookRetry.ValueType(retry),
            concurrency=concurrency,
            vendor_app_id=vendor_app_id,
            filter=wanted,
        ),
        key=storage_pb2.Secret(value=key),
        request_id=request_id,
    )


def _update(
    webhook_id: str,
    app_id: str = "app",
    *,
    url: str = "",
    etag: str = "",
    concurrency: int = 0,
    vendor_app_id: str = "",
    paths: Sequence[str] = (),
) -> webhook_pb2.UpdateWebhookRequest:
    return webhook_pb2.UpdateWebhookRequest(
        webhook=webhook_pb2.Webhook(
            app_id=app_id,
            webhook_id=webhook_id,
            url=url,
            etag=etag,
            concurrency=concurrency,
            vendor_app_id=vendor_app_id,
        ),
        update_mask=field_mask_pb2.FieldMask(paths=paths),
    )


def _rotate(
    webhook_id: str, *, seconds: int | None = None, key: str = "", app_id: str = "app"
) -> webhook_pb2.RotateWebhookKeyRequest:
    return webhook_pb2.RotateWebhookKeyRequest(
        app_id=app_id,
        webhook_id=webhook_id,
        key=storage_pb2.Secret(value=key),
        overlap=None if seconds is None else duration_pb2.Duration(seconds=seconds),
    )


def _resend(
    webhook_id: str, *delivery_ids: str, app_id: str = "app"
) -> webhook_pb2.ResendWebhookDeliveriesRequest:
    return webhook_pb2.ResendWebhookDeliveriesRequest(
        app_id=app_id, webhook_id=webhook_id, delivery_ids=delivery_ids
    )


def _deliveries(
    webhook_id: str, *, states: Sequence[int] = (), task_id: str = "", token: str = "", app_id: str = "app"
) -> webhook_pb2.ListWebhookDeliveriesRequest:
    return webhook_pb2.ListWebhookDeliveriesRequest(
        app_id=app_id,
        webhook_id=webhook_id,
        states=[webhook_pb2.WebhookDeliveryState.ValueType(state) for state in states],
        task_id=task_id,
        page_token=token,
    )


def _get(webhook_id: str, app_id: str = "app") -> webhook_pb2.GetWebhookRequest:
    return webhook_pb2.GetWebhookRequest(app_id=app_id, webhook_id=webhook_id)


def _delete(webhook_id: str, app_id: str = "app") -> webhook_pb2.DeleteWebhookRequest:
    return webhook_pb2.DeleteWebhookRequest(app_id=app_id, webhook_id=webhook_id)


def _with_url(url: str, _: World) -> Message:
    return _create(url=url)


def _with_key(kind: int, key: str, _: World) -> Message:
    return _create(kind=kind, key=key, vendor_app_id="1" if kind else "")


def _of_webhook(request: _Request, webhook_id: str, _: World) -> Message:
    return request(webhook_id)


def _of_another(request: _Request, world: World) -> Message:
    return request(world.webhook_id, app_id="gme")


_URLS = tuple(
    case(_CREATE, f"url with {about}", partial(_with_url, url), "INVALID_WEBHOOK_URL", "webhook.url")
    for about, url in (
        ("another scheme", "ftp://hooks.example.com/"),
        ("a file", "file:///etc/passwd"),
        ("no TLS", "http://hooks.example.com/"),
        ("user and password", "https://user:password@hooks.example.com/"),
        ("a user", "https://user@hooks.example.com/"),
        ("a fragment", "https://hooks.example.com/#a"),
        ("no host", "https:///events"),
        ("no scheme", "hooks.example.com/events"),
        ("port 0", "https://hooks.example.com:0/"),
        ("a port too high", "https://hooks.example.com:65536/"),
        ("a space", "https://hooks.example.com/a b"),
        ("a control", "https://hooks.example.com/\r\nHost: other"),
        ("letters beyond ASCII", "https://bücher.example/"),
        ("too many characters", "https://hooks.example.com/" + "a" * 2048),
        ("loopback", "https://127.0.0.1/"),
        ("loopback in IPv6", "https://[::1]/"),
        ("loopback in IPv4 in IPv6", "https://[::ffff:127.0.0.1]/"),
        ("loopback by name", "https://localhost/"),
        ("loopback as a number", "https://2130706433/"),
        ("loopback in hexadecimal", "https://0x7f.0.0.1/"),
        ("loopback cut short", "https://127.1/"),
        ("a private address", "https://10.0.0.1/"),
        ("a cloud's metadata", "https://169.254.169.254/latest/meta-data/"),
        ("an address of one network", "https://[fe80::1]/"),
        ("every address", "https://0.0.0.0/"),
    )
)

_KEYS = tuple(
    case(_CREATE, f"key {about}", partial(_with_key, kind, key), "INVALID_WEBHOOK_KEY", "key")
    for about, kind, key in (
        ("without prefix", 0, "A" * 32),
        ("too short", 0, _SHORT_KEY),
        ("too long", 0, "whsec_" + "A" * 88),
        ("with wrong characters", 0, "whsec_" + "!" * 32),
        ("without padding", 0, "whsec_" + "A" * 33),
        ("far too long", 0, "whsec_" + "A" * 100_000),
        ("with a dash for a vendor", _GME, "abc-def"),
        ("beyond ASCII for a vendor", _VOLC, "ключ"),
        ("too long for a vendor", _VOLC, "a" * 33),
    )
)

_OTHERS = (
    case(_CREATE, "nothing", lambda _: webhook_pb2.CreateWebhookRequest(), "FIELD_REQUIRED", "webhook"),
    case(_CREATE, "no application", lambda _: _create(""), "FIELD_REQUIRED", "webhook.app_id"),
    case(_CREATE, "no url", lambda _: _create(url=""), "FIELD_REQUIRED", "webhook.url"),
    case(
        _CREATE,
        "unknown application",
        lambda _: _create("nobody"),
        "APPLICATION_NOT_FOUND",
        metadata=lambda _: {"appId": "nobody"},
    ),
    case(
        _CREATE, "over-long name", lambda _: _create(name="n" * 257), "INVALID_VALUE", "webhook.display_name"
    ),
    case(_CREATE, "unknown format", lambda _: _create(kind=_UNKNOWN), "INVALID_VALUE", "webhook.format"),
    case(_CREATE, "unknown retry", lambda _: _create(retry=_UNKNOWN), "INVALID_VALUE", "webhook.retry"),
    case(
        _CREATE,
        "too many at once",
        lambda _: _create(concurrency=65),
        "INVALID_VALUE",
        "webhook.concurrency",
        metadata=lambda _: {"value": "65"},
    ),
    case(_CREATE, "negative", lambda _: _create(concurrency=-1), "INVALID_VALUE", "webhook.concurrency"),
    case(
        _CREATE,
        "unknown event type",
        lambda _: _create(wanted=event_pb2.EventFilter(types=[event_pb2.EventType.ValueType(_UNKNOWN)])),
        "INVALID_VALUE",
        "webhook.filter.types[0]",
    ),
    case(
        _CREATE,
        "filter with a task that is none",
        lambda _: _create(wanted=event_pb2.EventFilter(task_ids=["one"])),
        "INVALID_ID",
        "webhook.filter.task_ids[0]",
    ),
    case(
        _CREATE,
        "filter that is too long",
        lambda _: _create(wanted=event_pb2.EventFilter(room_ids=["r"] * 1001)),
        "INVALID_VALUE",
        "webhook.filter.room_ids",
    ),
    case(
        _CREATE,
        "vendor without its number",
        lambda _: _create(kind=_GME),
        "INVALID_VALUE",
        "webhook.vendor_app_id",
        metadata=lambda _: {"value": "'app'"},
    ),
    case(
        _CREATE,
        "number without vendor",
        lambda _: _create(vendor_app_id="1"),
        "INVALID_VALUE",
        "webhook.vendor_app_id",
    ),
    case(_CREATE, "over-long request id", lambda _: _create(request_id="r" * 37), "INVALID_ID", "request_id"),
    case(_UPDATE, "nothing", lambda _: webhook_pb2.UpdateWebhookRequest(), "FIELD_REQUIRED", "webhook"),
    case(_UPDATE, "no webhook", lambda _: _update(""), "FIELD_REQUIRED", "webhook.webhook_id"),
    case(
        _UPDATE,
        "unknown path",
        lambda world: _update(world.webhook_id, paths=["keys"]),
        "INVALID_UPDATE_MASK",
        "update_mask",
    ),
    case(
        _UPDATE,
        "format",
        lambda world: _update(world.webhook_id, paths=["format"]),
        "INVALID_UPDATE_MASK",
        "update_mask",
    ),
    case(
        _UPDATE,
        "old etag",
        lambda world: _update(world.webhook_id, url=URL, etag="r0"),
        "ETAG_MISMATCH",
        metadata=lambda world: {"webhookId": world.webhook_id},
    ),
    case(
        _UPDATE,
        "url with a private address",
        lambda world: _update(world.webhook_id, url="https://192.168.0.1/"),
        "INVALID_WEBHOOK_URL",
        "webhook.url",
    ),
    case(
        _UPDATE,
        "no url",
        lambda world: _update(world.webhook_id, paths=["url"]),
        "FIELD_REQUIRED",
        "webhook.url",
    ),
    case(
        _UPDATE,
        "too many at once",
        lambda world: _update(world.webhook_id, concurrency=65),
        "INVALID_VALUE",
        "webhook.concurrency",
    ),
    case(
        _UPDATE,
        "number without vendor",
        lambda world: _update(world.webhook_id, vendor_app_id="1"),
        "INVALID_VALUE",
        "webhook.vendor_app_id",
    ),
    case(
        _LIST,
        "unknown application",
        lambda _: webhook_pb2.ListWebhooksRequest(app_id="nobody"),
        "APPLICATION_NOT_FOUND",
    ),
    case(
        _LIST,
        "negative size",
        lambda _: webhook_pb2.ListWebhooksRequest(app_id="app", page_size=-1),
        "INVALID_VALUE",
        "page_size",
    ),
    case(
        _LIST,
        "token of nobody",
        lambda _: webhook_pb2.ListWebhooksRequest(app_id="app", page_token="x"),
        "INVALID_PAGE_TOKEN",
        "page_token",
    ),
    case(
        _ROTATE,
        "key too short",
        lambda world: _rotate(world.webhook_id, key=_SHORT_KEY),
        "INVALID_WEBHOOK_KEY",
        "key",
    ),
    case(
        _ROTATE,
        "negative overlap",
        lambda world: _rotate(world.webhook_id, seconds=-1),
        "INVALID_VALUE",
        "overlap",
    ),
    case(
        _ROTATE,
        "overlap too long",
        lambda world: _rotate(world.webhook_id, seconds=7 * 24 * 3600 + 1),
        "INVALID_VALUE",
        "overlap",
    ),
    case(
        _DELIVERIES,
        "unknown state",
        lambda world: _deliveries(world.webhook_id, states=[1, _UNKNOWN]),
        "INVALID_VALUE",
        "states[1]",
    ),
    case(
        _DELIVERIES,
        "task that is none",
        lambda world: _deliveries(world.webhook_id, task_id="one"),
        "INVALID_ID",
        "task_id",
    ),
    case(
        _DELIVERIES,
        "token of nobody",
        lambda world: _deliveries(world.webhook_id, token="x"),
        "INVALID_PAGE_TOKEN",
        "page_token",
    ),
    case(
        _RESEND,
        "unknown delivery",
        lambda world: _resend(world.webhook_id, "1-0000000000000000"),
        "DELIVERY_NOT_FOUND",
        metadata=lambda world: {"webhookId": world.webhook_id, "deliveryId": "1-0000000000000000"},
    ),
    case(
        _RESEND,
        "delivery that is none",
        lambda world: _resend(world.webhook_id, "a b"),
        "INVALID_ID",
        "delivery_ids[0]",
    ),
    case(
        _RESEND,
        "too many",
        lambda world: _resend(world.webhook_id, *["1"] * 1001),
        "INVALID_VALUE",
        "delivery_ids",
    ),
)

_OF_A_WEBHOOK: Sequence[tuple[str, _Request]] = (
    (_GET, _get),
    (_UPDATE, _update),
    (_DELETE, _delete),
    (_ROTATE, _rotate),
    (_DELIVERIES, _deliveries),
    (_RESEND, _resend),
)

_NOT_THERE = (
    *(
        case(rpc, "unknown webhook", partial(_of_webhook, request, "nobody"), "WEBHOOK_NOT_FOUND")
        for rpc, request in _OF_A_WEBHOOK
    ),
    *(
        case(
            rpc,
            "over-long webhook",
            partial(_of_webhook, request, "w" * 129),
            "INVALID_ID",
            "webhook.webhook_id" if rpc == _UPDATE else "webhook_id",
        )
        for rpc, request in _OF_A_WEBHOOK
    ),
)

_FOREIGN = tuple(
    case(
        rpc,
        "another application's webhook",
        partial(_of_another, request),
        "WEBHOOK_NOT_FOUND",
        metadata=lambda world: {"appId": "gme", "webhookId": world.webhook_id},
    )
    for rpc, request in _OF_A_WEBHOOK
)

CASES: Sequence[Case] = (*_URLS, *_KEYS, *_OTHERS, *_NOT_THERE, *_FOREIGN)
