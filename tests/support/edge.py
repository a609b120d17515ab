"""The gRPC edge with handlers that answer, refuse and fail by the id that is asked for."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from roomtape.v1 import (
    application_pb2,
    application_pb2_grpc,
    error_pb2,
    event_pb2,
    event_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
    task_pb2,
    task_pb2_grpc,
)
from roomtape_service.clock import ManualClock
from roomtape_service.errors import FieldViolation, Refusal, field_refusal
from roomtape_service.ids import CountedIds
from roomtape_service.rpc.call import authorize, current_call
from roomtape_service.rpc.interceptors import Context
from roomtape_service.rpc.server import RpcServer
from roomtape_service.settings import Settings, parse
from tests.support.waiting import eventually

__all__ = [
    "FIRST_ID",
    "KEY",
    "MASTER_KEY",
    "SECRET",
    "Applications",
    "Edge",
    "Ingest",
    "Tasks",
    "Watch",
    "bearer",
    "details_of",
    "health_stub",
    "reflection_stub",
    "serving",
    "settings_of",
    "trailers_of",
    "until_running",
]

SECRET = "the bucket's secret is hunter2"
KEY = "a-key-of-one"
MASTER_KEY = "a-key-of-all"
FIRST_ID = "0" * 19 + "1"


class Applications(application_pb2_grpc.ApplicationServiceServicer):
    """Answers by the id that is asked for."""

    async def GetApplication(
        self, request: application_pb2.GetApplicationRequest, context: Context
    ) -> application_pb2.GetApplicationResponse:
        match request.app_id:
            case "refused":
                raise Refusal(
                    error_pb2.ERROR_REASON_APPLICATION_NOT_FOUND,
                    "no application 'refused' – é😀\nsecond line",
                    metadata={"appId": "refused"},
                    fields=[FieldViolation("app_id", "is not there")],
                    retry_after_seconds=1.5,
                )
            case "huge":
                raise Refusal(
                    error_pb2.ERROR_REASON_INVALID_ID,
                    "😀" * 100_000,
                    metadata={"ids": "x" * 100_000},
                    fields=[FieldViolation(f"ids[{i}]", "too long " * 100) for i in range(1000)],
                )
            case "defect":
                raise ValueError(SECRET)
            case "no-code":
                raise Refusal(error_pb2.ERROR_REASON_WORKER_LOST, SECRET)
            case "cancels-itself":
                raise asyncio.CancelledError
            case "wrong-type":
                return SECRET  # type: ignore[return-value]
            case "forever":
                await asyncio.Event().wait()
        call = current_call.get()
        return application_pb2.GetApplicationResponse(
            application=application_pb2.Application(app_id=call.app_id, display_name=call.request_id)
        )

    async def CreateApplication(
        self, request: application_pb2.CreateApplicationRequest, context: Context
    ) -> application_pb2.CreateApplicationResponse:
        return application_pb2.CreateApplicationResponse(application=request.application)


class Tasks(task_pb2_grpc.RecordingServiceServicer):
    async def StopRecord(
        self, request: task_pb2.StopRecordRequest, context: Context
    ) -> task_pb2.StopRecordResponse:
        return task_pb2.StopRecordResponse()

    async def DescribeTaskInfo(
        self, request: task_pb2.DescribeTaskInfoRequest, context: Context
    ) -> task_pb2.DescribeTaskInfoResponse:
        return task_pb2.DescribeTaskInfoResponse()


class Watch(event_pb2_grpc.WatchServiceServicer):
    """An endless stream that ends in-band when it is drained, and says when its cleaning up is done."""

    def __init__(self) -> None:
        self.draining = asyncio.Event()
        self.cleaned = 0

    async def drain(self) -> None:
        self.draining.set()

    async def WatchEvents(
        self, request: event_pb2.WatchEventsRequest, context: Context
    ) -> AsyncIterator[event_pb2.WatchEventsResponse]:
        if request.resume_token == "bad":
            raise field_refusal(error_pb2.ERROR_REASON_INVALID_RESUME_TOKEN, "resume_token", "can't be read")
        try:
            yield event_pb2.WatchEventsResponse(resume_token="started")
            await self.draining.wait()
            yield event_pb2.WatchEventsResponse(resume_token="draining")
            raise Refusal(error_pb2.ERROR_REASON_DRAINING, "stopping", retry_after_seconds=1)
        finally:
            await asyncio.sleep(0)
            self.cleaned += 1

    async def ListEvents(
        self, request: event_pb2.ListEventsRequest, context: Context
    ) -> event_pb2.ListEventsResponse:
        return event_pb2.ListEventsResponse()


class Ingest(ingest_pb2_grpc.IngestServiceServicer):
    """Acknowledges each batch by its number of frames; written with the reader and writer calls."""

    async def Publish(  # type: ignore[override]
        self, requests: AsyncIterator[ingest_pb2.PublishRequest], context: Context
    ) -> None:
        async for request in requests:
            if request.WhichOneof("message") == "open":
                authorize(request.open.app_id, "open.app_id")
                await context.write(ingest_pb2.PublishResponse(opened=ingest_pb2.PublishOpened()))
            else:
                acknowledgement = ingest_pb2.Acknowledgement(sequence=len(request.frames.frames))
                await context.write(ingest_pb2.PublishResponse(acknowledgement=acknowledgement))


@dataclass
class Edge:
    """A running server, a channel to it, and what it logged."""

    server: RpcServer
    channel: aio.Channel
    clock: ManualClock
    watch: Watch
    log: list[Any] = field(default_factory=list)

    @property
    def applications(self) -> "application_pb2_grpc.ApplicationServiceAsyncStub":
        return application_pb2_grpc.ApplicationServiceStub(self.channel)

    async def refused(
        self, app_id: str, metadata: tuple[tuple[str, str], ...] = ()
    ) -> tuple[aio.AioRpcError, dict[str, Any]]:
        request = application_pb2.GetApplicationRequest(app_id=app_id)
        with pytest.raises(aio.AioRpcError) as caught:
            await self.applications.GetApplication(request, metadata=metadata)
        return caught.value, details_of(caught.value)

    async def logged(self, event: str, **expected: object) -> dict[str, Any]:
        """The first line of that event with these values; lines of a call come after its reply."""
        async with asyncio.timeout(5):
            while True:
                for line in self.log:
                    if line["event"] == event and expected.items() <= line.items():
                        return dict(line)
                await asyncio.sleep(0)


def trailers_of(error: aio.AioRpcError) -> dict[str, str | bytes]:
    return dict(error.trailing_metadata())


def details_of(error: aio.AioRpcError) -> dict[str, Any]:
    """The details of a status by the name of their type; none may come twice."""
    raw = trailers_of(error)["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    status = status_pb2.Status.FromString(raw)
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    found: dict[str, Any] = {}
    for detail in status.details:
        name = any_pb2.Any.TypeName(detail).rsplit(".", 1)[-1]
        assert name not in found
        found[name] = getattr(error_details_pb2, name)()
        assert detail.Unpack(found[name])
    assert found["ErrorInfo"].domain == "roomtape"
    assert found["RequestInfo"].request_id == trailers_of(error)["x-request-id"]
    return found


def settings_of(folder: Path, **values: object) -> Settings:
    return parse(
        {
            "data_dir": str(folder),
            "listen": "127.0.0.1:0",
            "http_listen": "127.0.0.1:0",
            "drain_seconds": 5,
            **values,
        }
    )


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Edge]:
    log: list[Any] = []
    clock, watch = ManualClock(), Watch()

    def keep(
        _logger: object, _method: str, line: MutableMapping[str, Any]
    ) -> tuple[tuple[str], dict[str, Any]]:
        log.append(line)
        return ("",), {}

    logger = structlog.wrap_logger(
        structlog.testing.CapturingLogger(),
        processors=[structlog.stdlib.add_log_level, keep],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    server = RpcServer(
        settings,
        [
            partial(application_pb2_grpc.add_ApplicationServiceServicer_to_server, Applications()),  # type: ignore[abstract]
            partial(task_pb2_grpc.add_RecordingServiceServicer_to_server, Tasks()),  # type: ignore[abstract]
            partial(event_pb2_grpc.add_WatchServiceServicer_to_server, watch),
            partial(ingest_pb2_grpc.add_IngestServiceServicer_to_server, Ingest()),
        ],
        [watch.drain],
        clock,
        CountedIds(),
        logger,
    )
    await server.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Edge(server, channel, clock, watch, log)
    finally:
        await server.aclose()


def health_stub(channel: aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


def reflection_stub(channel: aio.Channel) -> Any:
    untyped: Any = reflection_pb2_grpc.ServerReflectionStub
    return untyped(channel)


async def until_running(edge: "Edge") -> None:
    await eventually(lambda: edge.server.running > 0, "a call runs")


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)
