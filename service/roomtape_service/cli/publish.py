"""`roomtape publish`: puts audio files into a room, each as a user of its own."""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from roomtape.client import Client, RoomtapeError, SystemClock
from roomtape.v1 import media_pb2, room_pb2
from roomtape_service.cli.calling import CommandError, ExitCode, call
from roomtape_service.cli.enums import label
from roomtape_service.cli.interrupts import interrupts
from roomtape_service.cli.options import add_client_arguments, reader
from roomtape_service.cli.output import Output, new_table
from roomtape_service.cli.publishing import FilePublication
from roomtape_service.cli.texts import NANOSECONDS, read_time, show_span

__all__ = ["add_arguments", "run"]

_SHOW_SECONDS = 0.1
_JSON_SECONDS = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to publish, where, and how fast."""
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="any audio file; several are several users"
    )
    parser.add_argument("--room", required=True, help="id of the room")
    parser.add_argument("--create-room", action="store_true", help="open the room first, if it is not open")
    parser.add_argument(
        "--user",
        action="append",
        default=[],
        help="id of the user, one for each file in their order; default: the files' names",
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="as fast as the server takes it, into a room with the media clock; default: real time",
    )
    parser.add_argument(
        "--start",
        type=reader(read_time),
        metavar="TIME",
        help="when the files begin, in a room with the media clock; default: now",
    )
    parser.add_argument(
        "--opus-bitrate",
        type=int,
        metavar="BPS",
        help="encode what is no Opus to Opus; default: AAC and G.711 as they are, all else as PCM",
    )
    add_client_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Publishes until the files end (0) or Ctrl-C (130), which leaves the room when all that was sent is safe."""
    return call(arguments, lambda client, output: _publish(arguments, client, output))


async def _publish(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    users = _users(arguments)
    if arguments.create_room:
        clock = room_pb2.ROOM_CLOCK_MEDIA if arguments.fast else room_pb2.ROOM_CLOCK_ARRIVAL
        await client.rooms.CreateRoom(
            room_pb2.CreateRoomRequest(app_id=arguments.app, room_id=arguments.room, clock=clock)
        )
    await _check_clock(arguments, client)
    start_ns = _start_ns(arguments)
    publications = [
        FilePublication(
            client,
            path,
            arguments.app,
            arguments.room,
            user,
            realtime=not arguments.fast,
            start_ns=start_ns,
            opus_bitrate_bps=arguments.opus_bitrate,
        )
        for path, user in zip(arguments.files, users, strict=True)
    ]
    showing = asyncio.create_task(_show(publications, output))
    try:
        # A file that can't be read is found out before anyone joins, and all join before the first one speaks, so that
        # on a media clock nobody is left behind.
        for publication in publications:
            await publication.load()
        await _join(publications)
        with interrupts(lambda: _stop(publications)):
            results = await asyncio.gather(
                *(publication.run() for publication in publications), return_exceptions=True
            )
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        for publication in publications:
            await publication.aclose()
    _report(publications, output)
    for result in results:
        if result is not None:
            raise result
    if not all(publication.done for publication in publications):
        return ExitCode.INTERRUPTED
    return ExitCode.FAILED if any(map(_rejected, publications)) else ExitCode.DONE


async def _check_clock(arguments: argparse.Namespace, client: Client) -> None:
    if not arguments.fast and arguments.start is None:
        return
    request = room_pb2.DescribeRoomRequest(app_id=arguments.app, room_id=arguments.room)
    if (await client.rooms.DescribeRoom(request)).room.clock != room_pb2.ROOM_CLOCK_MEDIA:
        raise CommandError(
            f"--{'fast' if arguments.fast else 'start'} needs a room with the media clock, and room {arguments.room} "
            "has the server's; `rooms create --clock media` opens one"
        )


async def _join(publications: Sequence[FilePublication]) -> None:
    joined: list[FilePublication] = []
    try:
        for publication in publications:
            await publication.join()
            joined.append(publication)
    except RoomtapeError:
        for publication in joined:
            await publication.leave()
        raise


def _stop(publications: Sequence[FilePublication]) -> None:
    for publication in publications:
        publication.stop()


def _start_ns(arguments: argparse.Namespace) -> int | None:
    if arguments.start is not None:
        return int(arguments.start.ToNanoseconds())
    # Files that are played in together begin at one time, not each when it was opened.
    return SystemClock().now_ns() if arguments.fast else None


def _users(arguments: argparse.Namespace) -> list[str]:
    users = arguments.user or [path.stem for path in arguments.files]
    if len(users) != len(arguments.files):
        raise CommandError(
            f"{len(arguments.files)} files and {len(users)} users; give --user once for each file"
        )
    if len(set(users)) < len(users):
        raise CommandError("two files have the same user; give each its --user")
    return list(users)


async def _show(publications: Sequence[FilePublication], output: Output) -> None:
    if output.as_json:
        while True:
            await asyncio.sleep(_JSON_SECONDS)
            for publication in publications:
                output.show_json(_facts(publication))
    if not output.notes.is_terminal:
        return
    # A user's id is text, whatever brackets it has.
    name = TextColumn("{task.description}", markup=False)
    columns = name, BarColumn(), TextColumn("{task.fields[text]}")
    with Progress(*columns, console=output.notes, auto_refresh=False, transient=True) as progress:
        bars = [(progress.add_task(each.user_id, text="", total=None), each) for each in publications]
        while True:
            for bar, publication in bars:
                _update(progress, bar, publication)
            progress.refresh()
            await asyncio.sleep(_SHOW_SECONDS)


def _update(progress: Progress, bar: TaskID, publication: FilePublication) -> None:
    duration_ns = publication.duration_ns
    of = f" of {show_span(duration_ns)}" if duration_ns else ""
    text = f"{show_span(publication.published_ns)}{of}, safe to {show_span(publication.safe_ns)}"
    total = duration_ns / NANOSECONDS if duration_ns else None
    progress.update(bar, completed=publication.published_ns / NANOSECONDS, total=total, text=text)


def _report(publications: Sequence[FilePublication], output: Output) -> None:
    table = new_table("user", "as", "published", "safe", "frames", "rejected", "connections", right=_NUMBERS)
    for publication in publications:
        statistics = publication.statistics()
        if output.as_json:
            output.show_json(_facts(publication))
        elif statistics is not None:
            table.add_row(
                publication.user_id,
                label(media_pb2.Codec.DESCRIPTOR, publication.codec),
                show_span(publication.published_ns),
                show_span(publication.safe_ns),
                str(statistics.published_frames),
                str(statistics.rejected_frames),
                str(statistics.streams),
            )
    if not output.as_json:
        output.console.print(table)


_NUMBERS = ("published", "safe", "frames", "rejected", "connections")


def _rejected(publication: FilePublication) -> int:
    statistics = publication.statistics()
    return 0 if statistics is None else statistics.rejected_frames


def _facts(publication: FilePublication) -> dict[str, object]:
    return {
        "userId": publication.user_id,
        "file": str(publication.path),
        "publishedSeconds": publication.published_ns / NANOSECONDS,
        "safeSeconds": publication.safe_ns / NANOSECONDS,
        "rejectedFrames": _rejected(publication),
        "done": publication.done,
    }
