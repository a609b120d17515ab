"""`roomtape webhooks listen`: receives webhooks on this machine, verifies them and shows them."""

import argparse
import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web

from roomtape.client import RecentWebhooks, WebhookReceiver, WebhookVerifier
from roomtape.client.webhooks_aiohttp import webhook_handler
from roomtape.v1 import event_pb2, webhook_pb2
from roomtape_service.cli.calling import CommandError, ExitCode, call_nobody
from roomtape_service.cli.event_text import event_name, event_text, is_bad_news
from roomtape_service.cli.interrupts import interrupts
from roomtape_service.cli.options import EXIT_CODES, choice, reader
from roomtape_service.cli.output import Output
from roomtape_service.cli.texts import show_clock
from roomtape_service.settings_values import Address
from roomtape_service.webhooks.formats.receiving import NotGenuine, VendorEvent, read_vendor_event
from roomtape_service.webhooks.formats.table import format_of

__all__ = ["add_listen_arguments", "listen"]

DEFAULT_ADDRESS = "127.0.0.1:7480"
MAX_BODY_BYTES = 16 << 20
"""A list of all files of a long task with many users, as Volcengine has it, is some megabytes."""

_KEY_VARIABLE = "ROOMTAPE_WEBHOOK_KEY"
_NAME_COLUMNS = 22

Handler = Callable[[web.Request], Awaitable[web.Response]]


def add_listen_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to listen, and what comes."""
    parser.add_argument(
        "--listen",
        type=reader(_address),
        default=_address(DEFAULT_ADDRESS),
        metavar="[HOST:]PORT",
        help=f"default: {DEFAULT_ADDRESS}, for this machine alone; port 0 takes a free one",
    )
    parser.add_argument(
        "--format",
        type=choice(webhook_pb2.WebhookFormat.DESCRIPTOR),
        default=webhook_pb2.WEBHOOK_FORMAT_ROOMTAPE,
        metavar="roomtape|gme|trtc|trtc-classic|volc",
        help="how the webhook speaks; default: roomtape",
    )
    # A key on the command line is seen by everyone on the machine.
    parser.add_argument(
        "--key-file",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help=f"file with the webhook's key; may be repeated while keys overlap; default: {_KEY_VARIABLE}",
    )
    parser.add_argument("--count", type=int, metavar="N", help="end after so many webhooks; default: Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for programs")
    parser.epilog = EXIT_CODES


def listen(arguments: argparse.Namespace) -> int:
    """Shows each genuine webhook once, until Ctrl-C (0)."""
    return call_nobody(arguments, lambda output: _listen(arguments, output))


async def _listen(arguments: argparse.Namespace, output: Output) -> ExitCode:
    logger = logging.getLogger("roomtape.client")
    logger.handlers, logger.propagate = [_Refusals(output)], False
    shown = _Shown(output, arguments.count)
    handler = _handler(arguments.format, _keys(arguments), shown)
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app.router.add_post("/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        address: Address = arguments.listen
        await web.TCPSite(runner, address.host, address.port).start()
        host = f"[{address.host}]" if ":" in address.host else address.host
        url = f"http://{host}:{runner.addresses[0][1]}"
        output.note(f"listening on {url}, every path; Ctrl-C ends it")
        if output.as_json:
            output.show_json({"listening": url})
        with interrupts(shown.enough.set):
            await shown.enough.wait()
    finally:
        await runner.cleanup()
    return ExitCode.DONE


class _Shown:
    """What was shown, and whether that is enough."""

    def __init__(self, output: Output, count: int | None) -> None:
        self._output = output
        self._left = count
        self.enough = asyncio.Event()

    async def event(self, event: event_pb2.Event) -> None:
        parts = [
            show_clock(event.event_time),
            f"{event.sequence:>5}",
            f"{event_name(event):<{_NAME_COLUMNS}}",
        ]
        parts += [part for part in (event.room_id, event.task_id, event_text(event)) if part]
        if self._output.as_json:
            self._output.show_json(event)
        else:
            style = "yellow" if is_bad_news(event) else None
            self._output.console.print("  ".join(parts), style=style, soft_wrap=True)
        self._count()

    def vendor_event(self, event: VendorEvent) -> None:
        if self._output.as_json:
            self._output.show_json(event.content)
        else:
            text = json.dumps(event.content, ensure_ascii=False)
            self._output.console.print(f"{event.name:<{_NAME_COLUMNS}}  {text}", soft_wrap=True)
        self._count()

    def refusal(self, text: str) -> None:
        self._output.error(f"refused a webhook: {text}", {"message": text})

    def _count(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self.enough.set()


class _Refusals(logging.Handler):
    """Tells of the webhooks that the client library refused; it logs them."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.error(record.getMessage(), {"message": record.getMessage()})


def _handler(kind: webhook_pb2.WebhookFormat.ValueType, keys: Sequence[str], shown: _Shown) -> Handler:
    if kind == webhook_pb2.WEBHOOK_FORMAT_ROOMTAPE:
        receiver = WebhookReceiver(
            WebhookVerifier(keys), shown.event, seen=RecentWebhooks(), max_body_bytes=MAX_BODY_BYTES
        )
        return webhook_handler(receiver)

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        try:
            event = read_vendor_event(kind, request.headers, body, keys, int(time.time()))
        except NotGenuine as error:
            shown.refusal(str(error))
            return web.Response(status=401, text=str(error))
        shown.vendor_event(event)
        # What the vendors ask of a friendly receiver; none of them reads it.
        return web.json_response({"code": 0})

    return handle


def _address(text: str) -> Address:
    return Address.read(text if ":" in text else f"{DEFAULT_ADDRESS.partition(':')[0]}:{text}")


def _keys(arguments: argparse.Namespace) -> Sequence[str]:
    keys = [path.read_text("utf-8").strip() for path in arguments.key_file]
    keys = keys or os.environ.get(_KEY_VARIABLE, "").split()
    if not keys:
        raise CommandError(f"give the webhook's key in {_KEY_VARIABLE} or with --key-file")
    try:
        for key in keys:
            format_of(arguments.format).check_key(key)
    except ValueError as error:
        raise CommandError(f"the key can't be one of this format: {error}") from error
    return keys
