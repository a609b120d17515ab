"""What every call passes, over a real channel: ids, refusals, defects, keys, rates, streams, the ordered stop."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

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
from roomtape_service.rpc.interceptors import MAX_MESSAGE_BYTES, Context
from roomtape_service.rpc.server import RpcServer
from roomtape_service.settings import Settings, SettingsError, parse
from tests.support.certificates import make_certificates
from tests.support.waiting import eventually

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


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    async with serving(settings_of(tmp_path)) as running:
        yield running


@pytest.fixture
async def keyed(tmp_path: Path) -> AsyncIterator[Edge]:
    keys = [
        {"sha256": hashlib.sha256(KEY.encode()).hexdigest(), "applications": ["one"]},
        {"sha256": hashlib.sha256(MASTER_KEY.encode()).hexdigest(), "applications": ["*"]},
    ]
    async with serving(settings_of(tmp_path, api_keys=keys)) as running:
        yield running


def health_stub(channel: aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


def reflection_stub(channel: aio.Channel) -> Any:
    untyped: Any = reflection_pb2_grpc.ServerReflectionStub
    return untyped(channel)


async def until_running(edge: "Edge") -> None:
    await eventually(lambda: edge.server.running > 0, "a call runs")


def bearer(key: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


async def test_a_reply_has_its_request_id_in_the_trailers_and_in_the_log(edge: Edge) -> None:
    call = edge.applications.GetApplication(application_pb2.GetApplicationRequest(app_id="one"))
    response = await call
    assert dict(await call.trailing_metadata()) == {"x-request-id": FIRST_ID}
    assert response.application.app_id == "one"
    assert response.application.display_name == FIRST_ID
    line = await edge.logged("rpc", method="/roomtape.v1.ApplicationService/GetApplication")
    assert line["code"] == "OK"
    assert line["app_id"] == "one"
    assert line["level"] == "info"
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    assert line["duration_ms"] == 0


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("order-66.a_b", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("", False)],
)
async def test_a_callers_request_id_is_kept_when_it_is_sane(edge: Edge, sent: str, kept: bool) -> None:
    call = edge.applications.GetApplication(
        application_pb2.GetApplicationRequest(app_id="one"), metadata=(("x-request-id", sent),)
    )
    await call
    assert dict(await call.trailing_metadata())["x-request-id"] == (sent if kept else FIRST_ID)


async def test_a_refusal_comes_with_reason_fields_delay_and_request_id(edge: Edge) -> None:
    error, details = await edge.refused("refused")
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "no application 'refused' – é😀\nsecond line"
    assert details["ErrorInfo"].reason == "APPLICATION_NOT_FOUND"
    assert dict(details["ErrorInfo"].metadata) == {"appId": "refused"}
    violations = [(v.field, v.description) for v in details["BadRequest"].field_violations]
    assert violations == [("app_id", "is not there")]
    assert details["RetryInfo"].retry_delay.ToMilliseconds() == 1500
    line = await edge.logged("rpc", code="NOT_FOUND", reason="APPLICATION_NOT_FOUND")
    assert "exc_info" not in line


async def test_a_huge_refusal_is_cut_to_what_clients_take(edge: Edge) -> None:
    error, details = await edge.refused("huge")
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details["ErrorInfo"].reason == "INVALID_ID"
    assert 1 <= len(details["BadRequest"].field_violations) < 1000
    assert details["BadRequest"].field_violations[0].field == "ids[0]"


@pytest.mark.parametrize("app_id", ["defect", "no-code", "cancels-itself", "wrong-type"])
async def test_a_defect_says_nothing_to_the_caller_and_everything_to_the_log(edge: Edge, app_id: str) -> None:
    error, details = await edge.refused(app_id)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert details["ErrorInfo"].reason == "INTERNAL"
    assert SECRET not in repr(error)
    assert "Error" not in (error.details() or "")
    line = await edge.logged("rpc", code="INTERNAL", app_id=app_id)
    assert line["level"] == "error"
    assert isinstance(line["exc_info"], BaseException)
    assert line["exc_info"].__traceback__ is not None


async def test_bytes_that_are_no_message_are_refused_with_a_reason(edge: Edge) -> None:
    for method in ("ApplicationService/GetApplication", "WatchService/WatchEvents", "IngestService/Publish"):
        call: aio.StreamStreamCall[bytes, bytes] = edge.channel.stream_stream(f"/roomtape.v1.{method}")()
        await call.write(b"\xff\xff")
        await call.done_writing()
        with pytest.raises(aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert details_of(caught.value)["ErrorInfo"].reason == "INVALID_VALUE"


async def test_a_message_over_4_mib_is_refused_by_name_unary_and_streamed(edge: Edge) -> None:
    error, details = await edge.refused("x" * (MAX_MESSAGE_BYTES + 1))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details["ErrorInfo"].reason == "BATCH_TOO_LARGE"
    assert details["ErrorInfo"].metadata["limitBytes"] == str(MAX_MESSAGE_BYTES)

    call = ingest_pb2_grpc.IngestServiceStub(edge.channel).Publish()
    frames = [ingest_pb2.Frame(payload=bytes(1024 * 1024))]
    await call.write(ingest_pb2.PublishRequest(frames=ingest_pb2.FrameBatch(frames=frames * 3)))
    response = await call.read()
    assert isinstance(response, ingest_pb2.PublishResponse)
    assert response.acknowledgement.sequence == 3
    await call.write(ingest_pb2.PublishRequest(frames=ingest_pb2.FrameBatch(frames=frames * 5)))
    with pytest.raises(aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    details = details_of(caught.value)
    assert details["ErrorInfo"].reason == "BATCH_TOO_LARGE"
    assert [violation.field for violation in details["BadRequest"].field_violations] == ["frames"]


async def test_an_unknown_method_is_unimplemented(edge: Edge) -> None:
    for method in ("/roomtape.v1.ApplicationService/Nope", "/nope.Nope/Nope"):
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = edge.channel.unary_unary(method)
        with pytest.raises(aio.AioRpcError) as caught:
            await call(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert trailers_of(caught.value)["x-request-id"]
    # Of a registered service, but without an implementation of ours.
    with pytest.raises(aio.AioRpcError) as caught:
        await edge.applications.ListApplications(application_pb2.ListApplicationsRequest())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_caller_that_leaves_or_waits_too_long_is_logged_as_such(edge: Edge) -> None:
    request = application_pb2.GetApplicationRequest(app_id="forever")
    with pytest.raises(aio.AioRpcError) as caught:
        await edge.applications.GetApplication(request, timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await edge.logged("rpc", code="DEADLINE_EXCEEDED", app_id="forever")

    call = edge.applications.GetApplication(request)
    await until_running(edge)
    call.cancel()
    await edge.logged("rpc", code="CANCELLED", app_id="forever")
    assert edge.server.running == 0


async def test_a_stream_is_logged_when_it_opens_and_when_it_closes(edge: Edge) -> None:
    stub = event_pb2_grpc.WatchServiceStub(edge.channel)
    call = stub.WatchEvents(event_pb2.WatchEventsRequest(app_id="one"))
    response = await call.read()
    assert isinstance(response, event_pb2.WatchEventsResponse)
    assert response.resume_token == "started"
    await edge.logged("rpc_opened", app_id="one")
    call.cancel()
    line = await edge.logged("rpc_closed", code="CANCELLED", app_id="one")
    assert line["method"] == "/roomtape.v1.WatchService/WatchEvents"
    assert edge.watch.cleaned == 1
    assert [line["event"] for line in edge.log].count("rpc") == 0


async def test_a_stream_can_be_refused_in_its_handler(edge: Edge) -> None:
    stub = event_pb2_grpc.WatchServiceStub(edge.channel)
    with pytest.raises(aio.AioRpcError) as caught:
        await stub.WatchEvents(event_pb2.WatchEventsRequest(app_id="one", resume_token="bad")).read()
    assert details_of(caught.value)["ErrorInfo"].reason == "INVALID_RESUME_TOKEN"


@pytest.mark.parametrize(
    "metadata", [(), bearer("another"), (("authorization", KEY),), (("authorization", ""),)]
)
async def test_without_a_known_key_nothing_is_answered(
    keyed: Edge, metadata: tuple[tuple[str, str], ...]
) -> None:
    error, details = await keyed.refused("one", metadata)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert details["ErrorInfo"].reason == "API_KEY_INVALID"
    assert KEY not in repr(keyed.log)


async def test_a_key_reaches_its_own_applications_only(keyed: Edge) -> None:
    get = keyed.applications.GetApplication
    for key, app_id in ((KEY, "one"), (MASTER_KEY, "one"), (MASTER_KEY, "two")):
        response = await get(application_pb2.GetApplicationRequest(app_id=app_id), metadata=bearer(key))
        assert response.application.app_id == app_id
    error, details = await keyed.refused("two", bearer(KEY))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert details["ErrorInfo"].reason == "APPLICATION_FORBIDDEN"
    assert details["BadRequest"].field_violations[0].field == "app_id"

    two = application_pb2.Application(app_id="two")
    with pytest.raises(aio.AioRpcError) as caught:
        await keyed.applications.CreateApplication(
            application_pb2.CreateApplicationRequest(application=two), metadata=bearer(KEY)
        )
    assert details_of(caught.value)["BadRequest"].field_violations[0].field == "application.app_id"

    watch = event_pb2_grpc.WatchServiceStub(keyed.channel)
    with pytest.raises(aio.AioRpcError) as caught:
        await watch.WatchEvents(event_pb2.WatchEventsRequest(app_id="two"), metadata=bearer(KEY)).read()
    assert details_of(caught.value)["ErrorInfo"].reason == "APPLICATION_FORBIDDEN"

    publish = ingest_pb2_grpc.IngestServiceStub(keyed.channel).Publish(metadata=bearer(KEY))
    await publish.write(ingest_pb2.PublishRequest(open=ingest_pb2.PublishOpen(app_id="two")))
    with pytest.raises(aio.AioRpcError) as caught:
        await publish.read()
    assert details_of(caught.value)["BadRequest"].field_violations[0].field == "open.app_id"
    await keyed.logged("rpc_closed", reason="APPLICATION_FORBIDDEN", app_id="two")


async def test_calls_that_change_tasks_are_limited_per_application(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, record_calls_per_second=20, record_calls_burst=3)
    async with serving(settings) as edge:
        tasks = task_pb2_grpc.RecordingServiceStub(edge.channel)
        for _ in range(3):
            await tasks.StopRecord(task_pb2.StopRecordRequest(app_id="one"))
        with pytest.raises(aio.AioRpcError) as caught:
            await tasks.StopRecord(task_pb2.StopRecordRequest(app_id="one"))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        details = details_of(caught.value)
        assert details["ErrorInfo"].reason == "RATE_LIMITED"
        assert details["RetryInfo"].retry_delay.ToMilliseconds() == 50

        await tasks.StopRecord(task_pb2.StopRecordRequest(app_id="two"))
        for _ in range(10):
            await tasks.DescribeTaskInfo(task_pb2.DescribeTaskInfoRequest(app_id="one"))
        edge.clock.advance(0.05)
        await tasks.StopRecord(task_pb2.StopRecordRequest(app_id="one"))


async def test_health_and_reflection_answer_without_a_key(keyed: Edge) -> None:
    health = health_stub(keyed.channel)
    for service in ("", "roomtape.v1.RecordingService", "roomtape.v1.IngestService"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="nope"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    reflected = reflection_stub(keyed.channel).ServerReflectionInfo()
    await reflected.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = await reflected.read()
    await reflected.done_writing()
    assert "roomtape.v1.WatchService" in {service.name for service in listed.list_services_response.service}
    assert await reflected.read() is aio.EOF
    ended = [line["level"] for line in keyed.log if "code" in line]
    assert set(ended) == {"debug"}


async def test_a_stop_ends_streams_in_band_and_waits_for_handlers(edge: Edge) -> None:
    stub = event_pb2_grpc.WatchServiceStub(edge.channel)
    calls = [stub.WatchEvents(event_pb2.WatchEventsRequest(app_id="one")) for _ in range(50)]
    for call in calls:
        await call.read()
    await edge.server.aclose()
    assert edge.watch.cleaned == 50
    assert edge.server.running == 0
    for call in calls:
        last = await call.read()
        assert isinstance(last, event_pb2.WatchEventsResponse)
        assert last.resume_token == "draining"
        with pytest.raises(aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert details_of(caught.value)["ErrorInfo"].reason == "DRAINING"
    await edge.server.aclose()


async def test_a_stopping_server_refuses_new_calls_and_lets_running_ones_end(edge: Edge) -> None:
    health = health_stub(edge.channel)
    statuses = health.Watch(health_pb2.HealthCheckRequest(service=""))
    assert (await statuses.read()).status == health_pb2.HealthCheckResponse.SERVING
    running = edge.applications.GetApplication(application_pb2.GetApplicationRequest(app_id="forever"))
    await until_running(edge)
    stopping = asyncio.create_task(edge.server.aclose())
    assert (await statuses.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    await edge.watch.draining.wait()
    error, details = await edge.refused("one")
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert details["ErrorInfo"].reason == "DRAINING"
    assert details["RetryInfo"].retry_delay.seconds >= 1
    running.cancel()
    await stopping
    assert edge.server.running == 0


async def test_a_call_that_does_not_end_is_cancelled_after_the_grace(tmp_path: Path) -> None:
    async with serving(settings_of(tmp_path, drain_seconds=0)) as edge:
        running = edge.applications.GetApplication(application_pb2.GetApplicationRequest(app_id="forever"))
        await until_running(edge)
        await edge.server.aclose()
        assert edge.server.running == 0
        with pytest.raises(aio.AioRpcError) as caught:
            await running
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_port_that_is_taken_is_a_problem_with_the_settings(edge: Edge, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="another server"):
        async with serving(settings_of(tmp_path, listen=f"127.0.0.1:{edge.server.port}")):
            pass


async def test_tls_is_spoken_when_there_is_a_certificate(tmp_path: Path) -> None:
    files = make_certificates(tmp_path, ["localhost", "127.0.0.1"])
    tls = {"tls_certificate_file": str(files.certificate), "tls_key_file": str(files.key)}
    async with serving(settings_of(tmp_path, **tls)) as edge:
        trusted = grpc.ssl_channel_credentials(files.authority.read_bytes())
        async with aio.secure_channel(f"localhost:{edge.server.port}", trusted) as channel:
            stub = application_pb2_grpc.ApplicationServiceStub(channel)
            response = await stub.GetApplication(application_pb2.GetApplicationRequest(app_id="one"))
            assert response.application.app_id == "one"
        with pytest.raises(aio.AioRpcError) as caught:
            await edge.applications.GetApplication(application_pb2.GetApplicationRequest(app_id="one"))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_tls_files_that_are_none_are_a_problem_with_the_settings(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    with pytest.raises(SettingsError, match="TLS files"):
        async with serving(settings_of(tmp_path, tls_certificate_file=str(bad), tls_key_file=str(bad))):
            pass


async def test_a_method_without_a_coroutine_is_refused_at_start(tmp_path: Path) -> None:
    class Wrong(application_pb2_grpc.ApplicationServiceServicer):
        def GetApplication(
            self, request: application_pb2.GetApplicationRequest, context: Context
        ) -> application_pb2.GetApplicationResponse:
            return application_pb2.GetApplicationResponse()

    register = partial(application_pb2_grpc.add_ApplicationServiceServicer_to_server, Wrong())  # type: ignore[abstract]
    server = RpcServer(settings_of(tmp_path), [register], [], ManualClock(), CountedIds())
    with pytest.raises(TypeError, match="GetApplication is not asynchronous"):
        await server.start()
    await server.aclose()


async def test_a_drain_that_fails_or_hangs_does_not_keep_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roomtape_service.rpc.server._STEP_SECONDS", 0.05)
    drained = []

    async def fails() -> None:
        raise ValueError(SECRET)

    async def hangs() -> None:
        await asyncio.Event().wait()

    async def works() -> None:
        drained.append(True)

    server = RpcServer(
        settings_of(tmp_path, drain_seconds=0), [], [fails, hangs, works], ManualClock(), CountedIds()
    )
    await server.start()
    await server.aclose()
    assert drained == [True]
