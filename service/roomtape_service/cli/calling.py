"""How every command calls a server, and what becomes of its errors."""

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from enum import IntEnum

import grpc

from roomtape.client import Client, HistoryGone, RoomtapeError, TlsSettings
from roomtape_service.cli.output import Output

__all__ = ["CommandError", "ExitCode", "Work", "call", "call_nobody"]

_UNREACHABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


class ExitCode(IntEnum):
    """How a command ended; argparse itself ends with USAGE."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERRUPTED = 130


class CommandError(Exception):
    """A command that can't be carried out for a reason on this side; `str()` of it is for people."""


Work = Callable[[Client, Output], Awaitable[ExitCode]]


def call(arguments: argparse.Namespace, work: Work) -> int:
    """Runs `work` with a client of the server that `add_client_arguments` asked for; the exit code.

    Whatever fails is told in one line on standard error.
    """
    output = Output(as_json=arguments.json)

    def work_out() -> int:
        try:
            return asyncio.run(_with_client(arguments, work, output))
        except RoomtapeError as error:
            return _tell(error, arguments, output)

    return _ended(work_out, output)


def call_nobody(arguments: argparse.Namespace, work: Callable[[Output], Awaitable[ExitCode]]) -> int:
    """Runs `work`, which needs no server, as `call` does."""
    output = Output(as_json=arguments.json)

    async def work_out() -> ExitCode:
        return await work(output)

    return _ended(lambda: asyncio.run(work_out()), output)


def _ended(work_out: Callable[[], int], output: Output) -> int:
    try:
        return work_out()
    except CommandError as error:
        output.error(str(error), {"message": str(error)})
    except BrokenPipeError:
        # Whoever read our output has gone, and nothing may be flushed into the pipe when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        output.error(text, {"message": text})
    except (KeyboardInterrupt, asyncio.CancelledError):
        return ExitCode.INTERRUPTED
    return ExitCode.FAILED


async def _with_client(arguments: argparse.Namespace, work: Work, output: Output) -> ExitCode:
    tls = None
    if arguments.tls or arguments.ca:
        tls = TlsSettings(root_certificates=arguments.ca.read_bytes() if arguments.ca else None)
    api_key = arguments.api_key or os.environ.get("ROOMTAPE_API_KEY")
    _tell_interruptions(output)
    async with Client(arguments.server, api_key=api_key, tls=tls) as client:
        return await work(client, output)


def _tell(error: RoomtapeError, arguments: argparse.Namespace, output: Output) -> ExitCode:
    unreachable = error.code in _UNREACHABLE and not error.reason_name
    text = error.message or "the server gave no message"
    if unreachable:
        text = f"no answer from {arguments.server}: {text}"
    if isinstance(error, HistoryGone) and error.oldest_resume_token:
        text += f"; the oldest event that is kept comes with --after {error.oldest_resume_token}"
    fields = [violation.field for violation in error.field_violations]
    facts = [error.reason_name or error.code.name, *(f"field {field}" for field in fields)]
    if error.retry_after is not None:
        facts.append(f"try again in {error.retry_after:g} s")
    if error.request_id:
        facts.append(f"request {error.request_id}")
    output.error(
        f"{text} ({', '.join(facts)})",
        {
            "code": error.code.name,
            "reason": error.reason_name,
            "message": error.message,
            "fields": [
                {"field": each.field, "description": each.description} for each in error.field_violations
            ],
            "metadata": dict(error.metadata),
            "requestId": error.request_id,
        },
    )
    return ExitCode.UNREACHABLE if unreachable else ExitCode.FAILED


class _Notes(logging.Handler):
    """Shows what the client library logs: that a stream broke and is tried again."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.INFO)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.note(record.getMessage())


def _tell_interruptions(output: Output) -> None:
    logger = logging.getLogger("roomtape.client")
    logger.setLevel(logging.INFO)
    logger.handlers = [_Notes(output)]
    logger.propagate = False
