"""Every refusal of the contract arrives as the typed error that says the same, on both clients."""

import asyncio
import re

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import aio

import roomtape.client
from roomtape.client import (
    Client,
    FieldViolation,
    HistoryCompacted,
    HistoryLost,
    Internal,
    NotFound,
    RoomtapeError,
    SyncClient,
    Unavailable,
    UnknownFailure,
    errors,
    from_rpc_error,
)
from roomtape.v1 import application_pb2, error_pb2, event_pb2, ingest_pb2
from roomtape_service.errors import CODES, Refusal, reason_name
from roomtape_service.errors import FieldViolation as Violation
from tests.client.conftest import QUICK
from tests.client.scripted import REQUEST_ID, Faults, Play, Scripted


@pytest.mark.parametrize("reason", CODES, ids=reason_name)
async def test_every_reason_arrives_typed(
    server: Scripted, client: Client, reason: error_pb2.ErrorReason.ValueType
) -> None:
    server.applications.refusal = Refusal(
        reason,
        "no – 'app' is é😀",
        metadata={"appId": "app"},
        fields=[Violation("app_id", "is not there")],
        retry_after_seconds=0.001,
    )
    request = application_pb2.GetApplicationRequest(app_id="app")
    with SyncClient(server.target, retry=QUICK) as sync_client:
        with pytest.raises(RoomtapeError) as caught:
            await client.applications.GetApplication(request)
        with pytest.raises(RoomtapeError) as sync_caught:
            await asyncio.to_thread(sync_client.applications.GetApplication, request)
    for error in (caught.value, sync_caught.value):
        assert error.reason == reason
        assert error.reason_name == reason_name(reason)
        assert error.code is CODES[reason]
        assert error.message == "no – 'app' is é😀"
        assert error.metadata == {"appId": "app"}
        assert error.field_violations == (FieldViolation("app_id", "is not there"),)
        assert error.retry_after == pytest.approx(0.001)
        assert error.request_id == REQUEST_ID
        assert isinstance(error.__cause__, grpc.RpcError)
        assert str(error) == f"no – 'app' is é😀 [{error.code.name}, {error.reason_name}, {REQUEST_ID}]"
    assert type(caught.value) is type(sync_caught.value) is not RoomtapeError


async def test_history_errors_carry_a_fresh_token(server: Scripted, client: Client) -> None:
    metadata = {"oldestSequence": "41", "oldestResumeToken": "fresh"}
    server.applications.refusal = Refusal(
        error_pb2.ERROR_REASON_EVENT_HISTORY_COMPACTED, "gone", metadata=metadata
    )
    with pytest.raises(HistoryCompacted) as compacted:
        await client.applications.GetApplication(application_pb2.GetApplicationRequest())
    assert (compacted.value.oldest_resume_token, compacted.value.oldest_sequence) == ("fresh", 41)
    server.applications.refusal = Refusal(
        error_pb2.ERROR_REASON_EVENT_HISTORY_LOST, "gone", metadata={"oldestResumeToken": "fresh"}
    )
    with pytest.raises(HistoryLost) as lost:
        await client.applications.GetApplication(application_pb2.GetApplicationRequest())
    assert (lost.value.oldest_resume_token, lost.value.oldest_sequence) == ("fresh", None)


async def test_streams_of_the_stubs_raise_typed_errors(server: Scripted, client: Client) -> None:
    gone = Refusal(error_pb2.ERROR_REASON_APPLICATION_NOT_FOUND, "no application 'app'")
    server.watching.plays.extend([Play(refusal=gone), Play(refusal=gone)])
    server.ingest.faults.extend([Faults(refusal=gone), Faults(refusal=gone)])
    opening = ingest_pb2.PublishRequest(open=ingest_pb2.PublishOpen(app_id="app"))
    request = event_pb2.WatchEventsRequest(app_id="app")
    with pytest.raises(NotFound, match="no application 'app'"):
        async for _ in client.watch.WatchEvents(request):
            pass
    call = client.ingest.Publish()
    await call.write(opening)
    with pytest.raises(NotFound, match="no application 'app'"):
        await call.read()

    def both() -> None:
        with SyncClient(server.target, retry=QUICK) as sync_client:
            with pytest.raises(NotFound, match="no application 'app'"):
                list(sync_client.watch.WatchEvents(request))
            with pytest.raises(NotFound, match="no application 'app'"):
                list(sync_client.ingest.Publish(iter([opening])))

    await asyncio.to_thread(both)


def test_a_bare_status_keeps_code_and_message() -> None:
    error = from_rpc_error(aio.AioRpcError(grpc.StatusCode.NOT_FOUND, aio.Metadata(), aio.Metadata(), "gone"))
    assert type(error) is NotFound
    assert (error.message, error.reason, error.reason_name) == ("gone", 0, "")
    assert (error.metadata, error.field_violations, error.retry_after, error.request_id) == ({}, (), None, "")
    assert str(error) == "gone [NOT_FOUND]"


@pytest.mark.parametrize("details", [b"\xff\xff\xff", b"", b"\x0a"])
def test_trailers_that_are_none_do_no_harm(details: bytes) -> None:
    trailers = aio.Metadata(("grpc-status-details-bin", details), ("x-request-id", "7"))
    error = from_rpc_error(aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, aio.Metadata(), trailers, "no"))
    assert type(error) is Unavailable
    assert error.request_id == "7"


def test_reasons_of_others_and_of_newer_servers() -> None:
    def error(domain: str, reason: str) -> RoomtapeError:
        info, retry = any_pb2.Any(), any_pb2.Any()
        info.Pack(error_details_pb2.ErrorInfo(domain=domain, reason=reason, metadata={"key": "value"}))
        retry.Pack(
            error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=2, nanos=500_000_000))
        )
        status = status_pb2.Status(code=5, details=[info, retry, any_pb2.Any(type_url="unknown/kind")])
        trailers = aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
        return from_rpc_error(aio.AioRpcError(grpc.StatusCode.NOT_FOUND, aio.Metadata(), trailers, ""))

    newer = error("roomtape", "NOT_YET_KNOWN")
    assert (newer.reason, newer.reason_name) == (error_pb2.ERROR_REASON_UNSPECIFIED, "NOT_YET_KNOWN")
    assert newer.retry_after == 2.5
    assert newer.metadata == {"key": "value"}
    foreign = error("example.com", "TASK_IN_USE")
    assert (foreign.reason, foreign.reason_name, foreign.metadata) == (0, "", {})


def test_every_code_has_its_error() -> None:
    kinds = {
        type(from_rpc_error(aio.AioRpcError(code, aio.Metadata(), aio.Metadata(), "")))
        for code in grpc.StatusCode
        if code is not grpc.StatusCode.OK
    }
    assert len(kinds) == len(grpc.StatusCode) - 1
    assert {UnknownFailure, Internal} <= kinds


def test_the_drawn_tree_is_the_tree() -> None:
    drawn = re.findall(r"^    ([ │]*)[├└]── (\w+)", errors.__doc__ or "", re.MULTILINE)
    parents: dict[str, str] = {}
    above = {-1: "Exception"}
    for indent, name in drawn:
        depth = len(indent) // 4
        parents[name] = above[depth - 1]
        above[depth] = name
    kinds = [
        kind
        for name in roomtape.client.__all__
        if isinstance(kind := getattr(roomtape.client, name), type) and issubclass(kind, errors.RoomtapeError)
    ]
    assert parents == {kind.__name__: kind.__bases__[0].__name__ for kind in kinds}
