"""`roomtape watch`: what happens, as it happens."""

import argparse
import asyncio
from contextlib import suppress

from roomtape.client import Client, Watch
from roomtape.v1 import application_pb2, event_pb2
from roomtape_service.cli.calling import ExitCode, call
from roomtape_service.cli.event_text import event_name, event_text, is_bad_news
from roomtape_service.cli.interrupts import interrupts
from roomtape_service.cli.options import add_client_arguments, choice, comma_separated
from roomtape_service.cli.output import Output
from roomtape_service.cli.texts import show_clock

__all__ = ["add_arguments", "run"]

_NAME_COLUMNS = 22


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to watch, and from where."""
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--after", metavar="TOKEN", help="go on after the event that came with this token")
    start.add_argument(
        "--from-oldest", action="store_true", help="begin with the oldest event that is kept; default: now"
    )
    parser.add_argument("--room", action="append", default=[], help="only of this room; may be repeated")
    parser.add_argument(
        "--task",
        action="append",
        default=[],
        help="only of this task; the watch of one task ends with its task-files-complete",
    )
    parser.add_argument(
        "--type",
        type=comma_separated(choice(event_pb2.EventType.DESCRIPTOR)),
        action="extend",
        default=[],
        metavar="TYPE[,TYPE]",
        help="only of these types, such as segment-uploaded,task-files-complete",
    )
    add_client_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Shows events until the watched task is over (0) or Ctrl-C (0), then the token to go on from."""
    return call(arguments, lambda client, output: _watch(arguments, client, output))


async def _watch(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    # A watch waits for ever for its server; one that is not there at the start is an answer.
    await client.applications.GetApplication(application_pb2.GetApplicationRequest(app_id=arguments.app))
    filter = event_pb2.EventFilter(room_ids=arguments.room, task_ids=arguments.task, types=arguments.type)
    origin = event_pb2.WATCH_ORIGIN_OLDEST if arguments.from_oldest else event_pb2.WATCH_ORIGIN_NOW
    async with client.watch_events(
        arguments.app, after=arguments.after, origin=origin, filter=filter
    ) as events:
        following = asyncio.create_task(_follow(events, output))
        try:
            with interrupts(following.cancel), suppress(asyncio.CancelledError):
                await following
        finally:
            following.cancel()
            if events.resume_token != arguments.after:
                _show_token(events.resume_token, output)
    return ExitCode.DONE


async def _follow(events: Watch, output: Output) -> None:
    await events.start()
    output.note("watching; Ctrl-C ends it")
    async for event in events:
        if output.as_json:
            output.show_json(
                event_pb2.WatchEventsResponse(resume_token=events.resume_token or "", event=event)
            )
        else:
            output.console.print(_line(event), style="yellow" if is_bad_news(event) else None, soft_wrap=True)


def _line(event: event_pb2.Event) -> str:
    parts = [show_clock(event.event_time), f"{event.sequence:>5}", f"{event_name(event):<{_NAME_COLUMNS}}"]
    parts += [part for part in (event.room_id, event.task_id, event_text(event)) if part]
    return "  ".join(parts)


def _show_token(token: str | None, output: Output) -> None:
    if not token:
        return
    if output.as_json:
        output.show_json(event_pb2.WatchEventsResponse(resume_token=token))
    else:
        output.note(f"go on from here with --after {token}")
