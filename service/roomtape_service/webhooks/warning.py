"""What the owner of a webhook is told whose receiver takes nothing for long."""

from dataclasses import dataclass
from datetime import UTC, datetime

from roomtape.v1 import error_pb2, event_pb2
from roomtape_service.clock import NANOSECONDS

__all__ = ["ReceiverWarning"]


@dataclass(frozen=True, slots=True)
class ReceiverWarning:
    """`failures` attempts in a row failed since `since_ns`, UTC nanoseconds, the last one by `cause`."""

    app_id: str
    webhook_id: str
    since_ns: int
    failures: int
    cause: str

    def event(self) -> event_pb2.Event:
        """The WARNING for the application's log."""
        since = datetime.fromtimestamp(self.since_ns // NANOSECONDS, UTC).isoformat()
        message = (
            f"The receiver of the webhook {self.webhook_id} has taken nothing since {since}, in {self.failures} "
            f"attempts: {self.cause}. Each event is tried for as long as the webhook says, then it is a dead letter."
        )
        warning = event_pb2.WarningDetail(reason=error_pb2.ERROR_REASON_WEBHOOK_FAILING, message=message)
        return event_pb2.Event(type=event_pb2.EVENT_TYPE_WARNING, app_id=self.app_id, warning=warning)
