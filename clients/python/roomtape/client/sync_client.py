"""The client for threads."""

import random
import threading
from collections.abc import Iterator
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from roomtape.client.backoff import Backoff, RetrySettings
from roomtape.client.calls import DEFAULT_TIMEOUT_SECONDS, CallPolicy
from roomtape.client.connection import Endpoint, TlsSettings
from roomtape.client.cursor import DEFAULT_BOOKMARK_SECONDS, FINAL_STATES, TELLING_EVENTS, WatchCursor
from roomtape.client.errors import ClientClosed
from roomtape.client.interceptors import intercept_sync
from roomtape.client.listing import PageCursor, SyncEventList
from roomtape.client.paging import sync_pages
from roomtape.client.sync_watching import SyncWatch
from roomtape.v1 import event_pb2, file_pb2, room_pb2, segment_pb2, task_pb2
from roomtape.v1.application_pb2_grpc import ApplicationServiceStub
from roomtape.v1.event_pb2_grpc import WatchServiceStub
from roomtape.v1.file_pb2_grpc import FileServiceStub
from roomtape.v1.ingest_pb2_grpc import IngestServiceStub
from roomtape.v1.room_pb2_grpc import RoomServiceStub
from roomtape.v1.task_pb2_grpc import RecordingServiceStub
from roomtape.v1.webhook_pb2_grpc import WebhookServiceStub

if TYPE_CHECKING:
    from grpc import _CallIterator  # pyright: ignore[reportPrivateUsage]

__all__ = ["SyncClient"]


class SyncClient:
    """A server, for threads; like `Client`, without publishing.

    ::

        with SyncClient("recorder.example:443", api_key=key, tls=TlsSettings()) as client:
            reply = client.recording.StartRecord(request)
            for event in client.watch_events("app", after=reply.resume_token):
                ...

    Every call raises a RoomtapeError when it does not end well. Unary calls that find no server are tried again, with
    full jitter: requests that change something get a `request_id` under which the server acts once. Calls without
    `timeout` get the client's. `future()` of a stub returns when the call is over.

    Any thread may use it. Nothing is connected before the first call.
    """

    def __init__(
        self,
        target: str,
        *,
        api_key: str | None = None,
        tls: TlsSettings | None = None,
        timeout_seconds: float | None = DEFAULT_TIMEOUT_SECONDS,
        retry: RetrySettings | None = None,
    ) -> None:
        """`target` is `host:port` or any gRPC target. Without `tls` the connection is plain text, the key included."""
        self._endpoint = Endpoint(target, api_key, tls)
        self._retry = retry or RetrySettings()
        self._closed = threading.Event()
        policy = CallPolicy(
            metadata=self._endpoint.metadata,
            timeout_seconds=timeout_seconds,
            retry=self._retry,
            is_closed=self._closed.is_set,
            wait=self._closed.wait,
        )
        # A channel for threads does nothing before its first call, and making it later would need a lock.
        self._streams = self._endpoint.open_sync()
        self._calls = intercept_sync(self._streams, policy)

    @cached_property
    def recording(self) -> RecordingServiceStub:
        """Tasks: what to record of which room."""
        return RecordingServiceStub(self._calls)

    @cached_property
    def watch(self) -> WatchServiceStub:
        """Events; `watch_events` resumes by itself, a stream of this stub does not."""
        return WatchServiceStub(self._calls)

    @cached_property
    def rooms(self) -> RoomServiceStub:
        """Rooms and who is in them."""
        return RoomServiceStub(self._calls)

    @cached_property
    def ingest(self) -> IngestServiceStub:
        """Media into rooms; for publishing that loses nothing see `Client.publisher`."""
        return IngestServiceStub(self._calls)

    @cached_property
    def files(self) -> FileServiceStub:
        """The library of what was recorded."""
        return FileServiceStub(self._calls)

    @cached_property
    def applications(self) -> ApplicationServiceStub:
        """Applications and where their files go."""
        return ApplicationServiceStub(self._calls)

    @cached_property
    def webhooks(self) -> WebhookServiceStub:
        """Where events are sent, and what became of them. Receiving them: `verify_webhook`."""
        return WebhookServiceStub(self._calls)

    def watch_events(
        self,
        app_id: str,
        *,
        after: str | None = None,
        origin: event_pb2.WatchOrigin.ValueType = event_pb2.WATCH_ORIGIN_NOW,
        filter: event_pb2.EventFilter | None = None,
        bookmark_seconds: float = DEFAULT_BOOKMARK_SECONDS,
        outage_seconds: float | None = None,
    ) -> SyncWatch:
        """The events of an application, after the token `after` or from `origin`, each once; see `SyncWatch`.

        From WATCH_ORIGIN_SNAPSHOT the watch begins with the state as it is, which `SyncWatch.snapshot` gives.
        `bookmark_seconds` (1 to 300) is how often a quiet server is heard. `outage_seconds` is how long the server
        may be away before the last error is raised; default: for ever.
        """
        cursor = WatchCursor(
            app_id, after=after, origin=origin, filter=filter, bookmark_seconds=bookmark_seconds
        )

        def open_watch(
            request: event_pb2.WatchEventsRequest,
        ) -> "_CallIterator[event_pb2.WatchEventsResponse]":
            # On a channel that was closed before it was used, gRPC ends the whole process.
            if self._closed.is_set():
                raise ClientClosed
            return WatchServiceStub(self._streams).WatchEvents(request, metadata=self._endpoint.metadata)

        return SyncWatch(open_watch, cursor, Backoff(self._retry, random.uniform), outage_seconds)

    def list_events(
        self,
        app_id: str,
        *,
        after: str | None = None,
        origin: event_pb2.WatchOrigin.ValueType = event_pb2.WATCH_ORIGIN_OLDEST,
        filter: event_pb2.EventFilter | None = None,
        follow: bool = False,
    ) -> SyncEventList:
        """The events that are there, after the token `after` or from `origin` on, page by page; see `SyncEventList`.

        With `follow` it goes on with what happens then, by calls that wait: for those who can't keep a stream open.
        """
        cursor = PageCursor(app_id, after=after, origin=origin, filter=filter, follow=follow)
        return SyncEventList(
            self.watch.ListEvents, cursor, Backoff(self._retry, random.uniform), self._closed.wait
        )

    def list_tasks(self, request: task_pb2.ListTasksRequest) -> Iterator[task_pb2.Task]:
        """The tasks that `request` asks for, those of the later pages too."""
        for page in sync_pages(self.recording.ListTasks, request):
            yield from page.tasks

    def list_files(self, request: file_pb2.ListFilesRequest) -> Iterator[segment_pb2.Segment]:
        """The files that `request` asks for, those of the later pages too."""
        for page in sync_pages(self.files.ListFiles, request):
            yield from page.files

    def list_rooms(self, request: room_pb2.ListRoomsRequest) -> Iterator[room_pb2.Room]:
        """The rooms that `request` asks for, those of the later pages too."""
        for page in sync_pages(self.rooms.ListRooms, request):
            yield from page.rooms

    def wait_until_complete(self, app_id: str, task_id: str) -> task_pb2.DescribeRecordInfoResponse:
        """Waits until a task was stopped and every file of it is in the store; everything about the task then.

        Raises NotFound for a task that does not exist. A task that failed is an answer too; its state says so.
        """
        filter = event_pb2.EventFilter(task_ids=[task_id], types=TELLING_EVENTS)
        request = task_pb2.DescribeRecordInfoRequest(app_id=app_id, task_id=task_id)
        with self.watch_events(app_id, filter=filter) as events:
            events.start()
            while True:
                reply = self.recording.DescribeRecordInfo(request)
                if reply.task.state in FINAL_STATES:
                    return reply
                if next(events, None) is None:
                    return self.recording.DescribeRecordInfo(request)

    def close(self) -> None:
        """Closes the connection; calls and watches that run, or begin later, raise ClientClosed."""
        self._closed.set()
        self._streams.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
