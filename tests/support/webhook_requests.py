"""Requests of the format ROOMTAPE, as the service makes them."""

from roomtape.v1 import event_pb2
from roomtape_service.clock import NANOSECONDS
from roomtape_service.webhooks.formats.format import Delivery, FormatContext, Request, SigningKey
from roomtape_service.webhooks.formats.roomtape import RoomtapeFormat

__all__ = ["KEY", "OTHER_KEY", "SENT_SECONDS", "event", "request"]

KEY = RoomtapeFormat().make_key(lambda count: b"k" * count)
OTHER_KEY = RoomtapeFormat().make_key(lambda count: b"o" * count)
SENT_SECONDS = 1_700_000_000


def event(sequence: int = 1) -> event_pb2.Event:
    """An event whose text is not ASCII."""
    return event_pb2.Event(
        sequence=sequence, type=event_pb2.EVENT_TYPE_PARTICIPANT_JOINED, app_id="app", room_id="Zimmer ü 会议"
    )


def request(
    of: event_pb2.Event, *keys: str, webhook_id: str = "delivery-1", sent_seconds: int = SENT_SECONDS
) -> Request:
    """The request that tells of the event; `keys` newest first."""
    (request,) = RoomtapeFormat().requests(
        of,
        FormatContext(vendor_app_id=""),
        [SigningKey(key) for key in keys or (KEY,)],
        Delivery(webhook_id, sent_seconds * NANOSECONDS),
    )
    return request
