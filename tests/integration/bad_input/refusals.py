"""How a refusal reads on the wire, checked against the contract as it is read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from google.rpc import error_details_pb2, status_pb2
from grpc import aio

from tests.integration.bad_input.contract import allowed_codes

__all__ = ["Expected", "Refused", "read_refusal"]

_DETAILS_KEY = "grpc-status-details-bin"
_REQUEST_ID_KEY = "x-request-id"
_QUOTED = re.compile(r"(?<!\w)'([^']*)'")


@dataclass(frozen=True, slots=True)
class Refused:
    """An error of the API."""

    code: str
    reason: str
    message: str
    metadata: Mapping[str, str]
    fields: tuple[str, ...]
    """Fields at fault, as the BadRequest names them."""
    retry_seconds: float | None


@dataclass(frozen=True, slots=True)
class Expected:
    """What a refusal must say; `metadata` may hold more."""

    reason: str
    fields: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def check(self, refused: Refused) -> None:
        """Raises AssertionError where the refusal says something else."""
        assert refused.reason == self.reason, refused
        assert refused.fields == self.fields, refused
        assert self.metadata.items() <= refused.metadata.items(), refused


def read_refusal(error: aio.AioRpcError) -> Refused:
    """The refusal of an error.

    Raises AssertionError unless there is exactly one ErrorInfo, of our domain, with a code that the contract gives
    its reason, with every value that the message quotes; and a request id, the same in trailers and RequestInfo.
    """
    trailers = dict(error.trailing_metadata())
    assert _DETAILS_KEY in trailers, error
    raw = trailers[_DETAILS_KEY]
    assert isinstance(raw, bytes)
    status = status_pb2.Status.FromString(raw)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    infos, requests, bad, retries = [], [], [], []
    for detail in status.details:
        info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
        fields, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            infos.append(info)
        elif detail.Unpack(request):
            requests.append(request)
        elif detail.Unpack(fields):
            bad.append(fields)
        else:
            assert detail.Unpack(retry), detail.type_url
            retries.append(retry)
    assert len(infos) == 1, status
    assert len(requests) == 1, status
    assert len(bad) <= 1, status
    assert len(retries) <= 1, status
    assert infos[0].domain == "roomtape"
    assert trailers[_REQUEST_ID_KEY] == requests[0].request_id
    assert requests[0].request_id
    violations = [each for fields in bad for each in fields.field_violations]
    assert all(each.field and each.description and each.reason for each in violations), status
    refused = Refused(
        code=error.code().name,
        reason=infos[0].reason,
        message=status.message,
        metadata=dict(infos[0].metadata),
        fields=tuple(each.field for each in violations),
        retry_seconds=retries[0].retry_delay.ToNanoseconds() / 1e9 if retries else None,
    )
    _check_consistent(refused)
    return refused


def _check_consistent(refused: Refused) -> None:
    assert refused.code in allowed_codes()[refused.reason], refused
    assert refused.message, refused
    told = "\n".join(refused.metadata.values())
    unsaid = [quoted for quoted in _QUOTED.findall(refused.message) if quoted not in told]
    assert not unsaid, f"{unsaid} is in the message and not in the metadata: {refused}"
    if "field" in refused.metadata:
        assert refused.metadata["field"] in refused.fields, refused
