"""The client library of roomtape: `Client` for asyncio, `SyncClient` for threads.

Messages and enums are the generated ones of `roomtape.v1`.
"""

from roomtape.client.backoff import RetrySettings
from roomtape.client.client import Client
from roomtape.client.clock import Clock, SystemClock
from roomtape.client.connection import TlsSettings
from roomtape.client.cursor import WatchStatistics
from roomtape.client.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    ClientClosed,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    HistoryCompacted,
    HistoryGone,
    HistoryLost,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    RoomtapeError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    UnknownFailure,
    from_rpc_error,
)
from roomtape.client.file_publishing import OnProgress, PublishProgress
from roomtape.client.listing import EventList, SyncEventList
from roomtape.client.publisher import OnAcknowledged, OnRejected, Publisher
from roomtape.client.session import PublisherSettings, PublisherStatistics
from roomtape.client.snapshot import Snapshot
from roomtape.client.sync_client import SyncClient
from roomtape.client.sync_watching import SyncWatch
from roomtape.client.watching import Watch
from roomtape.client.webhooks import (
    ReceivedWebhook,
    WebhookBodyError,
    WebhookError,
    WebhookHeaderError,
    WebhookSignatureError,
    WebhookTimestampError,
    WebhookVerifier,
    verify_webhook,
)
from roomtape.client.webhooks_receiving import OnEvent, RecentWebhooks, SeenWebhooks, WebhookReceiver

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "Client",
    "ClientClosed",
    "Clock",
    "DataLoss",
    "DeadlineExceeded",
    "EventList",
    "FailedPrecondition",
    "FieldViolation",
    "HistoryCompacted",
    "HistoryGone",
    "HistoryLost",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "OnAcknowledged",
    "OnEvent",
    "OnProgress",
    "OnRejected",
    "OutOfRange",
    "PermissionDenied",
    "PublishProgress",
    "Publisher",
    "PublisherSettings",
    "PublisherStatistics",
    "ReceivedWebhook",
    "RecentWebhooks",
    "ResourceExhausted",
    "RetrySettings",
    "RoomtapeError",
    "SeenWebhooks",
    "Snapshot",
    "SyncClient",
    "SyncEventList",
    "SyncWatch",
    "SystemClock",
    "TlsSettings",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "UnknownFailure",
    "Watch",
    "WatchStatistics",
    "WebhookBodyError",
    "WebhookError",
    "WebhookHeaderError",
    "WebhookReceiver",
    "WebhookSignatureError",
    "WebhookTimestampError",
    "WebhookVerifier",
    "from_rpc_error",
    "verify_webhook",
]
