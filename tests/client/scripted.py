"""Servicers that follow the contract and fail on command, on a real server of loopback."""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc import aio
from grpc_status import rpc_status

from roomtape.v1 import (
    application_pb2,
    application_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
    room_pb2,
    task_pb2,
    task_pb2_grpc,
)
from roomtape_service.errors import Refusal
from roomtape_service.rpc.status import to_status

Context = aio.ServicerContext[Any, Any]
Fault = Callable[[Context], Any]

REQUEST_ID = "0" * 20


async def refuse(context: Context, refusal: Refusal) -> None:
    """Ends the call as the service would."""
    context.set_trailing_metadata((("x-request-id", REQUEST_ID),))
    await context.abort_with_status(rpc_status.to_status(to_status(refusal, REQUEST_ID)))


@dataclass
class Recording(task_pb2_grpc.RecordingServiceServicer):
    """Answers StopRecord and DescribeRecordInfo; before that, what `faults` say, one a call."""

    faults: deque[Fault] = field(default_factory=deque)
    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)
    states: deque[task_pb2.TaskState.ValueType] = field(default_factory=deque)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def StopRecord(
        self, request: task_pb2.StopRecordRequest, context: Context
    ) -> task_pb2.StopRecordResponse:
        await self._enter(request, context)
        return task_pb2.StopRecordResponse(task=task_pb2.Task(task_id=request.task_id))

    async def DescribeRecordInfo(
        self, request: task_pb2.DescribeRecordInfoRequest, context: Context
    ) -> task_pb2.DescribeRecordInfoResponse:
        await self._enter(request, context)
        state = self.states.popleft() if self.states else task_pb2.TASK_STATE_RECORDING
        return task_pb2.DescribeRecordInfoResponse(task=task_pb2.Task(task_id=request.task_id, state=state))

    async def ListTasks(
        self, request: task_pb2.ListTasksRequest, context: Context
    ) -> task_pb2.ListTasksResponse:
        await self._enter(request, context)
        page = int(request.page_token or 0)
        tasks = [task_pb2.Task(task_id=str(page * 2 + each)) for each in range(2)]
        return task_pb2.ListTasksResponse(tasks=tasks, next_page_token=str(page + 1) if page < 2 else "")

    async def _enter(self, request: object, context: Context) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        self.asked.set()
        if self.faults:
            await self.faults.popleft()(context)


@dataclass
class Applications(application_pb2_grpc.ApplicationServiceServicer):
    """Refuses every GetApplication."""

    refusal: Refusal | None = None

    async def GetApplication(
        self, request: application_pb2.GetApplicationRequest, context: Context
    ) -> application_pb2.GetApplicationResponse:
        if self.refusal is not None:
            await refuse(context, self.refusal)
        return application_pb2.GetApplicationResponse()


@dataclass
class Watching(event_pb2_grpc.WatchServiceServicer):
    """A log of `events` whose tokens are sequences; each stream, and each page, plays the next of `plays`.

    A play is how many events it sends, from how far behind its token, and how it ends.
    """

    plays: deque["Play"] = field(default_factory=deque)
    events: list[event_pb2.Event] = field(default_factory=list)
    requests: list[event_pb2.WatchEventsRequest] = field(default_factory=list)
    lists: list[event_pb2.ListEventsRequest] = field(default_factory=list)
    snapshot: list[event_pb2.SnapshotItem] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)

    async def WatchEvents(
        self, request: event_pb2.WatchEventsRequest, context: Context
    ) -> AsyncIterator[event_pb2.WatchEventsResponse]:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        play = self.plays.popleft() if self.plays else Play()
        if play.refusal is not None:
            await refuse(context, play.refusal)
        if request.origin == event_pb2.WATCH_ORIGIN_SNAPSHOT or request.resume_token == "snapshot":
            yield _bookmark(event_pb2.BOOKMARK_REASON_STARTED, 0, "snapshot")
            for item in self.snapshot[: play.items]:
                yield event_pb2.WatchEventsResponse(resume_token="snapshot", snapshot=item)
            if play.items < len(self.snapshot):
                assert play.end is not None
                await play.end(context)
            yield _bookmark(event_pb2.BOOKMARK_REASON_SNAPSHOT_END, 0)
            after = 0
        else:
            after = int(request.resume_token or 0)
            yield _bookmark(event_pb2.BOOKMARK_REASON_STARTED, after)
        start = max(0, after - play.repeats)
        for event in self.events[start : start + play.count]:
            yield event_pb2.WatchEventsResponse(resume_token=str(event.sequence), event=event)
            after = event.sequence
        if play.newer:
            yield event_pb2.WatchEventsResponse(resume_token=str(after))
        if play.bookmark:
            yield _bookmark(event_pb2.BOOKMARK_REASON_IDLE, after)
        if play.end is not None:
            await play.end(context)

    async def ListEvents(
        self, request: event_pb2.ListEventsRequest, context: Context
    ) -> event_pb2.ListEventsResponse:
        kept = event_pb2.ListEventsRequest()
        kept.CopyFrom(request)
        self.lists.append(kept)
        play = self.plays.popleft() if self.plays else Play()
        if play.refusal is not None:
            await refuse(context, play.refusal)
        after = int(request.resume_token or 0)
        if play.end is not None:
            await play.end(context)
        page = self.events[after : after + play.count]
        place = after + len(page)
        return event_pb2.ListEventsResponse(
            events=page, resume_token=str(place), has_more=place < len(self.events), is_over=play.is_over
        )


@dataclass
class Play:
    """One stream or page of `Watching`."""

    count: int = 1_000
    items: int = 1_000
    is_over: bool = False
    repeats: int = 0
    refusal: Refusal | None = None
    bookmark: bool = False
    newer: bool = False
    end: Fault | None = None


def _bookmark(
    reason: event_pb2.BookmarkReason.ValueType, sequence: int, resume_token: str = ""
) -> event_pb2.WatchEventsResponse:
    return event_pb2.WatchEventsResponse(
        resume_token=resume_token or str(sequence),
        bookmark=event_pb2.Bookmark(reason=reason, sequence=sequence),
    )


def events(count: int) -> list[event_pb2.Event]:
    """Events 1 to `count`."""
    return [event_pb2.Event(sequence=number + 1, app_id="app") for number in range(count)]


async def hang(context: Context) -> None:
    """Never answers."""
    await asyncio.Event().wait()


def abort(code: grpc.StatusCode) -> Fault:
    """Ends the call with a bare code."""

    async def end(context: Context) -> None:
        await context.abort(code, f"told to be {code.name}")

    return end


@dataclass
class Life:
    """One Publish stream of `Ingest`, as it went."""

    open: ingest_pb2.PublishOpen
    metadata: dict[str, str | bytes]
    messages: list[ingest_pb2.PublishRequest] = field(default_factory=list)

    def frames(self) -> list[ingest_pb2.Frame]:
        """All frames of the stream."""
        return [frame for message in self.messages for frame in message.frames.frames]


@dataclass
class Faults:
    """What goes wrong in one stream."""

    refusal: Refusal | None = None
    redirect: str = ""
    silent: bool = False
    abort_after_frames: int | None = None
    loses: bool = False
    refuse_after_frames: tuple[int, Refusal] | None = None
    drain_after_frames: int | None = None
    end_after_frames: int | None = None
    keep_acknowledgements: bool = False
    ignore_close: bool = False
    rejection: ingest_pb2.FramesRejected | None = None


@dataclass
class Ingest(ingest_pb2_grpc.IngestServiceServicer):
    """Takes frames, acknowledges them, and fails as the next of `faults` says. Sessions outlive streams."""

    clock: room_pb2.RoomClock.ValueType = room_pb2.ROOM_CLOCK_ARRIVAL
    faults: deque[Faults] = field(default_factory=deque)
    lives: list[Life] = field(default_factory=list)
    kept: dict[tuple[str, str], dict[int, ingest_pb2.Frame]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    forgets_sessions: bool = False
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def payloads(self, session: str, track_id: str = "audio") -> list[bytes]:
        """What the session's track kept, by sequence."""
        kept = self.kept[session, track_id]
        assert sorted(kept) == list(range(1, len(kept) + 1))
        return [kept[sequence].payload for sequence in sorted(kept)]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for `condition`, looked at after every message."""
        async with self.changed:
            await self.changed.wait_for(condition)

    async def Publish(
        self, request_iterator: AsyncIterator[ingest_pb2.PublishRequest], context: Context
    ) -> AsyncIterator[ingest_pb2.PublishResponse]:
        faults = self.faults.popleft() if self.faults else Faults()
        first = await anext(request_iterator)
        life = Life(first.open, dict(context.invocation_metadata() or ()))
        self.lives.append(life)
        await self._notify()
        if faults.refusal is not None:
            await refuse(context, faults.refusal)
        if faults.silent:
            await hang(context)
        if faults.redirect:
            yield ingest_pb2.PublishResponse(redirect=ingest_pb2.Redirect(target=faults.redirect))
            return
        session = first.open.publish_session_id
        if self.forgets_sessions:
            for track in first.open.tracks:
                self.kept.pop((session, track.track_id), None)
        resumed = any(key[0] == session for key in self.kept)
        yield ingest_pb2.PublishResponse(
            opened=ingest_pb2.PublishOpened(
                resumed=resumed, acknowledgements=self._safe(first.open), clock=self.clock
            )
        )
        if faults.rejection is not None:
            yield ingest_pb2.PublishResponse(frames_rejected=faults.rejection)
        seen = 0
        acknowledged = {each.track_id: each.sequence for each in self._safe(first.open)}
        async for message in request_iterator:
            life.messages.append(message)
            for frame in message.frames.frames:
                seen += 1
                self.kept[session, message.frames.track_id].setdefault(frame.sequence, frame)
            await self._notify()
            if faults.abort_after_frames is not None and seen >= faults.abort_after_frames:
                if faults.loses:
                    self._lose(session, acknowledged)
                await context.abort(grpc.StatusCode.INTERNAL, "told to break")
            if faults.refuse_after_frames is not None and seen >= faults.refuse_after_frames[0]:
                await refuse(context, faults.refuse_after_frames[1])
            if faults.end_after_frames is not None and seen >= faults.end_after_frames:
                return
            if faults.drain_after_frames is not None and seen >= faults.drain_after_frames:
                yield _goodbye(ingest_pb2.GOODBYE_REASON_DRAINING, self._safe(first.open))
                return
            if message.WhichOneof("message") == "close" and not faults.ignore_close:
                yield _goodbye(ingest_pb2.GOODBYE_REASON_CLOSED, self._safe(first.open))
                return
            if faults.keep_acknowledgements and not self.released.is_set():
                continue
            for acknowledgement in self._safe(first.open):
                acknowledged[acknowledgement.track_id] = acknowledgement.sequence
                yield ingest_pb2.PublishResponse(acknowledgement=acknowledgement)

    def _safe(self, opening: ingest_pb2.PublishOpen) -> list[ingest_pb2.Acknowledgement]:
        return [
            ingest_pb2.Acknowledgement(
                track_id=track.track_id,
                sequence=max(self.kept[opening.publish_session_id, track.track_id], default=0),
            )
            for track in opening.tracks
            if (opening.publish_session_id, track.track_id) in self.kept
        ]

    def _lose(self, session: str, acknowledged: dict[str, int]) -> None:
        for (owner, track_id), kept in self.kept.items():
            for sequence in [
                each for each in kept if owner == session and each > acknowledged.get(track_id, 0)
            ]:
                del kept[sequence]

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()


def _goodbye(
    reason: ingest_pb2.GoodbyeReason.ValueType, safe: Sequence[ingest_pb2.Acknowledgement]
) -> ingest_pb2.PublishResponse:
    return ingest_pb2.PublishResponse(goodbye=ingest_pb2.Goodbye(reason=reason, acknowledgements=safe))


@dataclass
class Scripted:
    """A server with all of them."""

    target: str
    recording: Recording
    applications: Applications
    watching: Watching
    ingest: Ingest


@asynccontextmanager
async def scripted_server(credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[Scripted]:
    """Runs the servicers on a free port of loopback."""
    server = aio.server()
    # What they leave out answers UNIMPLEMENTED.
    recording = Recording()  # type: ignore[abstract]
    applications = Applications()  # type: ignore[abstract]
    scripted = Scripted("", recording, applications, Watching(), Ingest())
    task_pb2_grpc.add_RecordingServiceServicer_to_server(scripted.recording, server)
    application_pb2_grpc.add_ApplicationServiceServicer_to_server(scripted.applications, server)
    event_pb2_grpc.add_WatchServiceServicer_to_server(scripted.watching, server)
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(scripted.ingest, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    scripted.target = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield scripted
    finally:
        await server.stop(None)
