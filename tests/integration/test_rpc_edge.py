"""What every call passes, over a real channel: ids, refusals, defects, sizes, streams."""

import grpc
import pytest
from grpc import aio

from roomtape.v1 import (
    application_pb2,
    event_pb2,
    event_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
)
from roomtape_service.rpc.interceptors import MAX_MESSAGE_BYTES
from tests.support.edge import FIRST_ID, SECRET, Edge, details_of, trailers_of, until_running


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
