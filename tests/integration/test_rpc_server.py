"""The server as a whole, over a real channel: keys, rates, health, TLS, the ordered stop."""

import asyncio
from functools import partial
from pathlib import Path

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from roomtape.v1 import (
    application_pb2,
    application_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
    task_pb2,
    task_pb2_grpc,
)
from roomtape_service.clock import ManualClock
from roomtape_service.ids import CountedIds
from roomtape_service.rpc.interceptors import Context
from roomtape_service.rpc.server import RpcServer
from roomtape_service.settings import SettingsError
from tests.support.certificates import make_certificates
from tests.support.edge import (
    KEY,
    MASTER_KEY,
    SECRET,
    Edge,
    bearer,
    details_of,
    health_stub,
    reflection_stub,
    serving,
    settings_of,
    until_running,
)


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
