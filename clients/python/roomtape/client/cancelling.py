"""Whose cancellation it is."""

import asyncio

from roomtape.client.errors import ClientClosed

__all__ = ["cancelled"]


def cancelled(
    error: asyncio.CancelledError, client_closed: bool = False
) -> asyncio.CancelledError | ClientClosed:
    """What to raise for a CancelledError that came out of a gRPC call.

    gRPC raises it in everyone who waits for a call when the channel is closed; without this they would end as if their
    own task had been cancelled. `client_closed` is for those whose task gRPC itself cancels then.
    """
    task = asyncio.current_task()
    return error if task is not None and task.cancelling() and not client_closed else ClientClosed()
