"""Every unary call of the contract through the facade for threads, one by one, as its descriptor says."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from roomtape.client import ClientClosed, RetrySettings, SyncClient, Unavailable
from roomtape.v1 import application_pb2, event_pb2, file_pb2, ingest_pb2, room_pb2, task_pb2, webhook_pb2

STUBS: dict[str, ServiceDescriptor] = {
    "recording": task_pb2.DESCRIPTOR.services_by_name["RecordingService"],
    "watch": event_pb2.DESCRIPTOR.services_by_name["WatchService"],
    "rooms": room_pb2.DESCRIPTOR.services_by_name["RoomService"],
    "ingest": ingest_pb2.DESCRIPTOR.services_by_name["IngestService"],
    "files": file_pb2.DESCRIPTOR.services_by_name["FileService"],
    "applications": application_pb2.DESCRIPTOR.services_by_name["ApplicationService"],
    "webhooks": webhook_pb2.DESCRIPTOR.services_by_name["WebhookService"],
}

UNARY = [
    pytest.param(attribute, method, id=method.name)
    for attribute, service in STUBS.items()
    for method in service.methods
    if not method.server_streaming
]


def test_every_service_of_the_contract_has_an_attribute() -> None:
    files = (application_pb2, event_pb2, file_pb2, ingest_pb2, room_pb2, task_pb2, webhook_pb2)
    services = {service for file in files for service in file.DESCRIPTOR.services_by_name.values()}
    assert services == set(STUBS.values())
    for attribute, service in STUBS.items():
        with SyncClient("127.0.0.1:1") as client:
            stub = getattr(client, attribute)
        for method in service.methods:
            assert callable(getattr(stub, method.name))


@dataclass
class Everything(grpc.GenericRpcHandler):
    """Answers any unary call with an empty message; each method's first call finds no server."""

    seen: dict[str, list[tuple[dict[str, str | bytes], bytes]]] = field(default_factory=dict)
    is_called: threading.Event = field(default_factory=threading.Event)

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        calls = self.seen.setdefault(details.method, [])

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            calls.append((dict(context.invocation_metadata()), request))
            self.is_called.set()
            if len(calls) == 1:
                context.abort(grpc.StatusCode.UNAVAILABLE, "told to")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def everything() -> Iterator[tuple[str, Everything]]:
    """Where it is, and what it saw."""
    with ThreadPoolExecutor(2) as pool:
        handler = Everything()
        server = grpc.server(pool, handlers=[handler])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}", handler
        server.stop(None).wait()


@pytest.mark.parametrize(("attribute", "method"), UNARY)
def test_a_call_carries_key_and_id_over_another_try(
    everything: tuple[str, Everything], attribute: str, method: MethodDescriptor
) -> None:
    target, handler = everything
    request_kind = GetMessageClass(method.input_type)
    retry = RetrySettings(attempts=2, initial_seconds=0.001)
    with SyncClient(target, api_key="k1", retry=retry) as client:
        reply = getattr(getattr(client, attribute), method.name)(request_kind())
    assert reply == GetMessageClass(method.output_type)()
    calls = handler.seen[f"/{method.containing_service.full_name}/{method.name}"]
    assert [metadata["authorization"] for metadata, _ in calls] == ["Bearer k1"] * 2
    assert calls[0][1] == calls[1][1]
    sent: Any = request_kind.FromString(calls[0][1])
    if "request_id" in method.input_type.fields_by_name:
        assert len(sent.request_id) == 36
        sent.ClearField("request_id")
    assert sent == request_kind()


def test_a_future_is_over_when_it_is_returned(everything: tuple[str, Everything]) -> None:
    with SyncClient(everything[0], retry=RetrySettings(attempts=1)) as client:
        failed = client.recording.StopRecord.future(task_pb2.StopRecordRequest())
        assert isinstance(failed.exception(), Unavailable)
        done = client.recording.StopRecord.future(task_pb2.StopRecordRequest())
        assert done.done()
        assert done.result() == task_pb2.StopRecordResponse()


class Silent(grpc.GenericRpcHandler):
    """Answers nothing before it is let go."""

    def __init__(self) -> None:
        self.is_asked = threading.Event()
        self.let_go = threading.Event()

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.is_asked.set()
            self.let_go.wait()
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def silent() -> Iterator[tuple[str, Silent]]:
    """Where it is, and what it heard."""
    with ThreadPoolExecutor(2) as pool:
        handler = Silent()
        server = grpc.server(pool, handlers=[handler])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}", handler
        handler.let_go.set()
        server.stop(None).wait()


def test_a_call_that_runs_while_the_client_is_closed_says_so(silent: tuple[str, Silent]) -> None:
    target, handler = silent
    client = SyncClient(target)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.recording.ListTasks, task_pb2.ListTasksRequest())
        assert handler.is_asked.wait(20)
        client.close()
        assert isinstance(running.exception(20), ClientClosed)
    with pytest.raises(ClientClosed):
        client.recording.ListTasks(task_pb2.ListTasksRequest())
    with pytest.raises(ClientClosed):
        next(client.watch.WatchEvents(event_pb2.WatchEventsRequest()))


def test_a_client_that_was_closed_before_its_first_call_says_so() -> None:
    client = SyncClient("127.0.0.1:1")
    client.close()
    with pytest.raises(ClientClosed):
        client.recording.ListTasks(task_pb2.ListTasksRequest())
    with pytest.raises(ClientClosed):
        next(client.watch.WatchEvents(event_pb2.WatchEventsRequest()))
    with pytest.raises(ClientClosed):
        next(client.watch_events("app"))


def test_closing_ends_the_wait_for_another_try(everything: tuple[str, Everything]) -> None:
    target, handler = everything
    an_hour = RetrySettings(initial_seconds=3600, max_seconds=3600)
    client = SyncClient(target, timeout_seconds=None, retry=an_hour)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.recording.ListTasks, task_pb2.ListTasksRequest())
        assert handler.is_called.wait(20)
        client.close()
        assert isinstance(waiting.exception(20), ClientClosed)
