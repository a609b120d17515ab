"""The client for asyncio."""

import random
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from grpc import aio

from roomtape.client.backoff import Backoff, RetrySettings
from roomtape.client.calls import DEFAULT_TIMEOUT_SECONDS, CallPolicy
from roomtape.client.clock import Clock, SystemClock
from roomtape.client.connection import Endpoint, TlsSettings
from roomtape.client.connector import Connector
from roomtape.client.cursor import DEFAULT_BOOKMARK_SECONDS, FINAL_STATES, TELLING_EVENTS, WatchCursor
from roomtape.client.interceptors import aio_interceptors
from roomtape.client.listing import EventList, PageCursor
from roomtape.client.paging import pages
from roomtape.client.publisher import OnAcknowledged, OnRejected, Publisher, publishing_retry
from roomtape.client.running import RunningStreams
from roomtape.client.session import PublisherSettings, PublisherStatistics
from roomtape.client.watching import Watch, WatchCall
from roomtape.v1 import event_pb2, file_pb2, ingest_pb2, room_pb2, segment_pb2, task_pb2
from roomtape.v1.application_pb2_grpc import ApplicationServiceStub
from roomtape.v1.event_pb2_grpc import WatchServiceStub
from roomtape.v1.file_pb2_grpc import FileServiceStub
from roomtape.v1.ingest_pb2_grpc import IngestServiceStub
from roomtape.v1.room_pb2_grpc import RoomServiceStub
from roomtape.v1.task_pb2_grpc import RecordingServiceStub
from roomtape.v1.webhook_pb2_grpc import WebhookServiceStub

if TYPE_CHECKING:
    from roomtape.client.file_publishing import OnProgress
    from roomtape.v1.application_pb2_grpc import ApplicationServiceAsyncStub
    from roomtape.v1.event_pb2_grpc import WatchServiceAsyncStub
    from roomtape.v1.file_pb2_grpc import FileServiceAsyncStub
    from roomtape.v1.ingest_pb2_grpc import IngestServiceAsyncStub
    from roomtape.v1.room_pb2_grpc import RoomServiceAsyncStub
    from roomtape.v1.task_pb2_grpc import RecordingServiceAsyncStub
    from roomtape.v1.webhook_pb2_grpc import WebhookServiceAsyncStub

__all__ = ["Client"]


class Client:
    """A server, for asyncio; the generated stubs with typed errors, and what the stubs alone can't do.

    ::

        async with Client("recorder.example:443", api_key=key, tls=TlsSettings()) as client:
            reply = await client.recording.StartRecord(request)
            async for event in client.watch_events("app", after=reply.resume_token):
                ...

    Every call raises a RoomtapeError when it does not end well. Unary calls that find no server are tried again, with
    full jitter: requests that change something get a `request_id` under which the server acts once. Calls without
    `timeout` get the client's.

    Nothing is connected before the first call. One client serves a whole program; use it in one event loop.
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
        self._running = RunningStreams()
        self._policy = CallPolicy(
            metadata=self._endpoint.metadata,
            timeout_seconds=timeout_seconds,
            retry=self._retry,
            is_closed=self._running.is_closed,
        )
        self._opened: list[aio.Channel] = []

    @cached_property
    def recording(self) -> "RecordingServiceAsyncStub":
        """Tasks: what to record of which room."""
        return RecordingServiceStub(self._calls)

    @cached_property
    def watch(self) -> "WatchServiceAsyncStub":
        """Events; `watch_events` resumes by itself, a stream of this stub does not."""
        return WatchServiceStub(self._calls)

    @cached_property
    def rooms(self) -> "RoomServiceAsyncStub":
        """Rooms and who is in them."""
        return RoomServiceStub(self._calls)

    @cached_property
    def ingest(self) -> "IngestServiceAsyncStub":
        """Media into rooms; `publisher` sends again what was lost, a stream of this stub does not."""
        return IngestServiceStub(self._calls)

    @cached_property
    def files(self) -> "FileServiceAsyncStub":
        """The library of what was recorded."""
        return FileServiceStub(self._calls)

    @cached_property
    def applications(self) -> "ApplicationServiceAsyncStub":
        """Applications and where their files go."""
        return ApplicationServiceStub(self._calls)

    @cached_property
    def webhooks(self) -> "WebhookServiceAsyncStub":
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
    ) -> Watch:
        """The events of an application, after the token `after` or from `origin`, each once; see `Watch`.

        From WATCH_ORIGIN_SNAPSHOT the watch begins with the state as it is, which `Watch.snapshot` gives.
        `bookmark_seconds` (1 to 300) is how often a quiet server is heard. `outage_seconds` is how long the server
        may be away before the last error is raised; default: for ever.
        """
        stub: WatchServiceAsyncStub = WatchServiceStub(self._streams)

        def open_watch(request: event_pb2.WatchEventsRequest) -> WatchCall:
            self._running.check()
            return self._running.add(stub.WatchEvents(request, metadata=self._endpoint.metadata))

        cursor = WatchCursor(
            app_id, after=after, origin=origin, filter=filter, bookmark_seconds=bookmark_seconds
        )
        return Watch(
            open_watch,
            cursor,
            Backoff(self._retry, random.uniform),
            outage_seconds,
        )

    def publisher(
        self,
        app_id: str,
        room_id: str,
        user_id: str,
        tracks: Sequence[ingest_pb2.TrackOffer],
        *,
        publish_session_id: str | None = None,
        start_time_ns: int | None = None,
        settings: PublisherSettings | None = None,
        clock: Clock | None = None,
        on_acknowledged: OnAcknowledged | None = None,
        on_rejected: OnRejected | None = None,
    ) -> Publisher:
        """A participant who publishes `tracks`; see `Publisher`.

        `publish_session_id` goes on with a session of another process; default: a new one. `start_time_ns` is when a
        participant of a MEDIA room joins, UTC; default: now. The callbacks run in the event loop and must not block.
        """
        opening = ingest_pb2.PublishOpen(
            app_id=app_id,
            room_id=room_id,
            user_id=user_id,
            publish_session_id=publish_session_id or secrets.token_hex(10),
            tracks=tracks,
        )
        return Publisher(
            Connector(self._endpoint, self._streams, self._running),
            opening,
            clock=clock or SystemClock(),
            settings=settings or PublisherSettings(),
            backoff=Backoff(publishing_retry(self._retry), random.uniform),
            start_ns=start_time_ns,
            on_acknowledged=on_acknowledged,
            on_rejected=on_rejected,
        )

    async def publish_file(
        self,
        path: str | Path,
        app_id: str,
        room_id: str,
        user_id: str,
        *,
        track_id: str = "audio",
        realtime: bool = True,
        start_time_ns: int | None = None,
        opus_bitrate_bps: int | None = None,
        settings: PublisherSettings | None = None,
        clock: Clock | None = None,
        on_progress: "OnProgress | None" = None,
    ) -> PublisherStatistics:
        """Publishes the audio of a media file as one participant; returns when all of it is safe.

        Any file that PyAV reads (the extra `media`). Opus in Ogg, WebM, Matroska and MP4, AAC-LC and G.711 go
        untouched, all else as PCM at 48 kHz; what is not Opus goes as Opus when `opus_bitrate_bps` is given.
        `realtime=False` goes as fast as the server takes it, into rooms with a MEDIA clock. There, the file's sound
        begins at `start_time_ns`; default: now.

        Raises ModuleNotFoundError without the extra, OSError for files that can't be read, ValueError for those
        without audio, for a rate that the room's clock does not allow, and the RoomtapeError of the session.
        """
        from roomtape.client.file_publishing import publish_file

        return await publish_file(
            lambda offer, clock: self.publisher(
                app_id,
                room_id,
                user_id,
                [offer],
                start_time_ns=start_time_ns,
                settings=replace(settings or PublisherSettings(), told_silence=True),
                clock=clock,
            ),
            path,
            track_id=track_id,
            realtime=realtime,
            start_ns=start_time_ns,
            opus_bitrate_bps=opus_bitrate_bps,
            clock=clock or SystemClock(),
            on_progress=on_progress,
        )

    def list_events(
        self,
        app_id: str,
        *,
        after: str | None = None,
        origin: event_pb2.WatchOrigin.ValueType = event_pb2.WATCH_ORIGIN_OLDEST,
        filter: event_pb2.EventFilter | None = None,
        follow: bool = False,
    ) -> EventList:
        """The events that are there, after the token `after` or from `origin` on, page by page; see `EventList`.

        With `follow` it goes on with what happens then, by calls that wait: for those who can't keep a stream open.
        """
        cursor = PageCursor(app_id, after=after, origin=origin, filter=filter, follow=follow)
        return EventList(self.watch.ListEvents, cursor, Backoff(self._retry, random.uniform))

    async def list_tasks(self, request: task_pb2.ListTasksRequest) -> AsyncIterator[task_pb2.Task]:
        """The tasks that `request` asks for, those of the later pages too."""
        async for page in pages(self.recording.ListTasks, request):
            for task in page.tasks:
                yield task

    async def list_files(self, request: file_pb2.ListFilesRequest) -> AsyncIterator[segment_pb2.Segment]:
        """The files that `request` asks for, those of the later pages too."""
        async for page in pages(self.files.ListFiles, request):
            for file in page.files:
                yield file

    async def list_rooms(self, request: room_pb2.ListRoomsRequest) -> AsyncIterator[room_pb2.Room]:
        """The rooms that `request` asks for, those of the later pages too."""
        async for page in pages(self.rooms.ListRooms, request):
            for room in page.rooms:
                yield room

    async def wait_until_complete(self, app_id: str, task_id: str) -> task_pb2.DescribeRecordInfoResponse:
        """Waits until a task was stopped and every file of it is in the store; everything about the task then.

        Raises NotFound for a task that does not exist. A task that failed is an answer too; its state says so.
        """
        filter = event_pb2.EventFilter(task_ids=[task_id], types=TELLING_EVENTS)
        request = task_pb2.DescribeRecordInfoRequest(app_id=app_id, task_id=task_id)
        async with self.watch_events(app_id, filter=filter) as events:
            # The watch is registered before the state is read, so nothing can happen in between.
            await events.start()
            while True:
                reply = await self.recording.DescribeRecordInfo(request)
                if reply.task.state in FINAL_STATES:
                    return reply
                if await anext(events, None) is None:
                    return await self.recording.DescribeRecordInfo(request)

    async def aclose(self) -> None:
        """Closes the connections; calls, watches and publishers that still run raise ClientClosed."""
        self._running.close()
        while self._opened:
            await self._opened.pop().close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @cached_property
    def _calls(self) -> aio.Channel:
        return self._open(aio_interceptors(self._policy))

    @cached_property
    def _streams(self) -> aio.Channel:
        # Watches and publishers translate errors themselves, and many messages pass: no interceptor in between.
        # Both channels share one connection.
        return self._open(())

    def _open(self, interceptors: Sequence[aio.ClientInterceptor]) -> aio.Channel:
        channel = self._endpoint.open(interceptors)
        self._opened.append(channel)
        return channel
