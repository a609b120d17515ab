"""`roomtape events`: what happened, as far as it is kept."""

import argparse
import asyncio
from contextlib import suppress

from roomtape.client import Client, EventList
from roomtape.v1 import event_pb2
from roomtape_service.cli.calling import ExitCode, call
from roomtape_service.cli.event_lines import event_line
from roomtape_service.cli.event_options import add_filter_arguments, event_filter
from roomtape_service.cli.interrupts import interrupts
from roomtape_service.cli.options import add_actions, add_client_arguments
from roomtape_service.cli.output import Output

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions."""
    add_actions(parser, {"list": ("list the events that are kept, oldest first", _add_list)})


def run(arguments: argparse.Namespace) -> int:
    """Shows the events that are there, then the token to go on from."""
    return call(arguments, lambda client, output: _list(arguments, client, output))


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--after", metavar="TOKEN", help="go on after this token; default: the oldest event")
    parser.add_argument(
        "--follow",
        action="store_true",
        help="go on with what happens then, page by page, where `watch` can't keep its stream open",
    )
    add_filter_arguments(parser, "with --follow, one task's list ends with its task-files-complete")
    add_client_arguments(parser)


async def _list(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    events = client.list_events(
        arguments.app, after=arguments.after, filter=event_filter(arguments), follow=arguments.follow
    )
    showing = asyncio.create_task(_show(events, output))
    try:
        with interrupts(showing.cancel), suppress(asyncio.CancelledError):
            await showing
    finally:
        showing.cancel()
        token = events.resume_token
        if token and output.as_json:
            output.show_json(event_pb2.WatchEventsResponse(resume_token=token))
        elif token:
            output.note(f"go on from here with --after {token}")
    return ExitCode.DONE


async def _show(events: EventList, output: Output) -> None:
    async for event in events:
        if output.as_json:
            output.show_json(event_pb2.WatchEventsResponse(event=event))
        else:
            line = event_line(event)
            output.console.print(line.text, style="yellow" if line.is_bad_news else None, soft_wrap=True)
