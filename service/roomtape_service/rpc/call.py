"""One RPC while it runs: who calls, under which id, and for which application.

The interceptor makes a `Call` and puts it into the context of the handler's task; everything that the handler
starts sees it too.
"""

from contextvars import ContextVar
from dataclasses import dataclass

import grpc

from roomtape.v1 import error_pb2
from roomtape_service.errors import FieldViolation, Refusal

__all__ = ["EVERY_APPLICATION", "Call", "Caller", "authorize", "current_call", "visible_applications"]


@dataclass(frozen=True, slots=True)
class Caller:
    """What an API key may reach: the named applications, or every one when `applications` is None."""

    applications: frozenset[str] | None

    def may_see(self, app_id: str) -> bool:
        """Whether the caller may reach the application."""
        return self.applications is None or app_id in self.applications


EVERY_APPLICATION = Caller(None)


@dataclass(slots=True)
class Call:
    """One RPC: what its trailers and its log line say."""

    method: str
    request_id: str
    caller: Caller
    app_id: str = ""
    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: str = ""
    cause: BaseException | None = None
    """What failed unexpectedly; for the log alone."""
    is_running: bool = False
    """Whether a server that stops waits for it."""


current_call: ContextVar[Call] = ContextVar("roomtape_call")


def authorize(app_id: str, field: str = "app_id") -> None:
    """Binds the running call to an application; streams call it once their first message names one.

    Unary requests and server streams with an `app_id` (or `application.app_id`, `webhook.app_id`) are bound
    before their servicer is called. Raises Refusal APPLICATION_FORBIDDEN when the caller's API key is not bound to it.
    Outside of a call, in tests of a bare servicer, everything is allowed.
    """
    call = current_call.get(None)
    if call is None:
        return
    call.app_id = app_id
    if not call.caller.may_see(app_id):
        text = f"The API key is not bound to the application {app_id!r}; use a key of this application."
        raise Refusal(
            error_pb2.ERROR_REASON_APPLICATION_FORBIDDEN,
            text,
            metadata={"appId": app_id},
            fields=[FieldViolation(field, text)],
        )


def visible_applications() -> frozenset[str] | None:
    """The applications that the running call's key may reach; None for every one."""
    call = current_call.get(None)
    return call.caller.applications if call else None
