"""`roomtape watch`: what happens, as it happens."""

import argparse
import asyncio
import time
from contextlib import suppress

from rich.live import Live

from roomtape.client import Client, Watch
from roomtape.v1 import application_pb2, event_pb2
from roomtape_service.cli.calling import ExitCode, call
from roomtape_service.cli.event_lines import EventLines, Line, event_line
from roomtape_service.cli.event_options import add_filter_arguments, event_filter
from roomtape_service.cli.interrupts import interrupts
from roomtape_service.cli.options import add_client_arguments
from roomtape_service.cli.output import Output
from roomtape_service.cli.watch_board import Board

__all__ = ["add_arguments", "run"]

# How often a terminal shows what is new: slower than anybody notices, faster than a busy room could fill it.
_REFRESH_SECONDS = 0.5
# Of a terminal, what the board may take; the rest is for what happens.
_BOARD_SHARE = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to watch, and from where."""
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--after", metavar="TOKEN", help="go on after the event that came with this token")
    start.add_argument(
        "--from-oldest", action="store_true", help="begin with the oldest event that is kept; default: now"
    )
    start.add_argument(
        "--snapshot", action="store_true", help="begin with what there is: rooms, users, tasks, recordings"
    )
    parser.add_argument(
        "--lines", action="store_true", help="also on a terminal, one line an event and no board of tasks"
    )
    add_filter_arguments(parser, "the watch of one task ends with its task-files-complete")
    add_client_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Shows events until the watched task is over (0) or Ctrl-C (0), then the token to go on from."""
    return call(arguments, lambda client, output: _watch(arguments, client, output))


async def _watch(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    # A watch waits for ever for its server; one that is not there at the start is an answer.
    await client.applications.GetApplication(application_pb2.GetApplicationRequest(app_id=arguments.app))
    is_live = output.console.is_terminal and not (output.as_json or arguments.lines)
    origin = event_pb2.WATCH_ORIGIN_NOW
    if arguments.from_oldest:
        origin = event_pb2.WATCH_ORIGIN_OLDEST
    elif arguments.snapshot or is_live:
        origin = event_pb2.WATCH_ORIGIN_SNAPSHOT
    async with client.watch_events(
        arguments.app, after=arguments.after, origin=origin, filter=event_filter(arguments)
    ) as events:
        follow = _show_live(events, output) if is_live else _show_lines(events, output, origin)
        following = asyncio.create_task(follow)
        try:
            with interrupts(following.cancel), suppress(asyncio.CancelledError):
                await following
        finally:
            following.cancel()
            if events.resume_token != arguments.after:
                _show_token(events.resume_token, output)
    return ExitCode.DONE


async def _show_lines(events: Watch, output: Output, origin: event_pb2.WatchOrigin.ValueType) -> None:
    await events.start()
    output.note("watching; Ctrl-C ends it")
    if origin == event_pb2.WATCH_ORIGIN_SNAPSHOT:
        await _show_snapshot(events, output)
    async for event in events:
        if output.as_json:
            output.show_json(
                event_pb2.WatchEventsResponse(resume_token=events.resume_token or "", event=event)
            )
        else:
            _print(event_line(event), output)


async def _show_snapshot(events: Watch, output: Output) -> None:
    snapshot = await events.snapshot()
    if snapshot is None:
        return
    if output.as_json:
        for item in snapshot.items:
            output.show_json(event_pb2.WatchEventsResponse(snapshot=item))
        return
    board = Board()
    board.begin(snapshot)
    output.console.print(board.render(time.time_ns(), len(snapshot.items) + 2))


async def _show_live(events: Watch, output: Output) -> None:
    board, lines = Board(), EventLines()
    with Live(console=output.console, auto_refresh=False, vertical_overflow="crop") as live:
        showing = asyncio.create_task(_refresh(board, lines, live, output))
        try:
            snapshot = await events.snapshot()
            if snapshot is not None:
                board.begin(snapshot)
            async for event in events:
                board.take(event)
                lines.add(event)
        finally:
            showing.cancel()
            _show(board, lines, live, output)


async def _refresh(board: Board, lines: EventLines, live: Live, output: Output) -> None:
    while True:
        _show(board, lines, live, output)
        await asyncio.sleep(_REFRESH_SECONDS)


def _show(board: Board, lines: EventLines, live: Live, output: Output) -> None:
    # What happened goes up and stays; the board stays below it.
    for line in lines.take():
        _print(line, output)
    rows = max(3, round(output.console.height * _BOARD_SHARE))
    live.update(board.render(time.time_ns(), rows), refresh=True)


def _print(line: Line, output: Output) -> None:
    output.console.print(line.text, style="yellow" if line.is_bad_news else None, soft_wrap=True)


def _show_token(token: str | None, output: Output) -> None:
    if not token:
        return
    if output.as_json:
        output.show_json(event_pb2.WatchEventsResponse(resume_token=token))
    else:
        output.note(f"go on from here with --after {token}")
