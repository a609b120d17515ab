"""What the contract says of calls and errors: the descriptors, and the comments of the proto files beside them."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

# Every service of the contract is in one of these files.
from roomtape.v1 import (
    application_pb2,
    error_pb2,
    event_pb2,
    file_pb2,
    ingest_pb2,
    room_pb2,
    task_pb2,
    webhook_pb2,
)

__all__ = [
    "allowed_codes",
    "listed_errors",
    "message_of",
    "method",
    "reasons",
    "requests_with_id",
    "rpcs",
]

_FILES = (application_pb2, event_pb2, file_pb2, ingest_pb2, room_pb2, task_pb2, webhook_pb2)
_PROTO = Path(__file__).resolve().parents[3] / "proto" / "roomtape" / "v1"
_PREFIX = "ERROR_REASON_"
_COMMENTED = re.compile(r"((?:^[ ]*//.*\n)+)[ ]*(rpc (\w+)|ERROR_REASON_(\w+) =)", re.MULTILINE)
_SERVICE = re.compile(r"^service (\w+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_CODES = {code.name for code in grpc.StatusCode}


def rpcs() -> Mapping[str, MethodDescriptor]:
    """Every RPC of every service, as `Service.Method`."""
    return {
        f"{service.name}.{method.name}": method
        for file in _FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def method(rpc: str) -> MethodDescriptor:
    """The RPC `Service.Method`."""
    return rpcs()[rpc]


def message_of(full_name: str) -> type[Message]:
    """The generated class of a message."""
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(full_name))


def requests_with_id() -> Sequence[str]:
    """RPCs whose request has a `request_id`."""
    return [rpc for rpc, described in rpcs().items() if "request_id" in described.input_type.fields_by_name]


def reasons() -> frozenset[str]:
    """Every ErrorReason without its prefix, but the one that is never sent."""
    names = (name.removeprefix(_PREFIX) for name, number in error_pb2.ErrorReason.items() if number)
    return frozenset(names)


@cache
def allowed_codes() -> Mapping[str, frozenset[str]]:
    """The gRPC codes that the contract gives each reason; none for those that no call ends with."""
    text = (_PROTO / "error.proto").read_text("utf-8")
    return {
        found[4]: frozenset(re.findall(r"\b[A-Z_]+\b", _plain(found[1]).partition(":")[0])) & _CODES
        for found in _COMMENTED.finditer(text)
        if found[4] and found[4] != "UNSPECIFIED"
    }


@cache
def listed_errors() -> Mapping[str, frozenset[str]]:
    """The reasons that the comment of each RPC names as its errors."""
    listed: dict[str, frozenset[str]] = {}
    for file in sorted(_PROTO.glob("*.proto")):
        for service in _SERVICE.finditer(file.read_text("utf-8")):
            for found in _COMMENTED.finditer(service[2]):
                comment = _plain(found[1])
                # What stands before it tells of events and stop reasons, some of which are named alike.
                errors = comment[comment.find("Errors") :] if "Errors" in comment else comment
                listed[f"{service[1]}.{found[3]}"] = frozenset(re.findall(r"\b[A-Z_]+\b", errors)) & reasons()
    return listed


def _plain(comment: str) -> str:
    return " ".join(line.strip().removeprefix("//").strip() for line in comment.splitlines())
