"""`roomtape files`: the library of what was recorded."""

import argparse
import asyncio
import hashlib
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from roomtape.client import Client
from roomtape.v1 import file_pb2, media_pb2, segment_pb2
from roomtape_service.cli.calling import CommandError, ExitCode, call
from roomtape_service.cli.enums import label
from roomtape_service.cli.options import add_actions, add_client_arguments, choice, read_label, reader
from roomtape_service.cli.output import Output
from roomtape_service.cli.tables import file_table
from roomtape_service.cli.texts import read_span, read_time, show_size, show_time

__all__ = ["add_arguments", "run"]

_CHUNK_BYTES = 1024 * 1024
_SILENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions."""
    add_actions(
        parser,
        {
            "list": ("list files that are in the store, oldest first", _add_list),
            "get": ("show a file's entry, or download the file", _add_get),
            "url": ("make a URL that plays a file", _add_url),
            "delete": ("delete files from the library and from their stores", _add_delete),
            "abandon": (
                "give up a file that its store does not take, so that its task completes",
                _add_abandon,
            ),
            "join": ("join a recording's segments into one file beside them", _add_join),
        },
    )


def run(arguments: argparse.Namespace) -> int:
    """Does the action."""
    actions = {
        "list": _list,
        "get": _get,
        "url": _url,
        "delete": _delete,
        "abandon": _abandon,
        "join": _join,
    }
    work = actions[arguments.action]
    return call(arguments, lambda client, output: work(arguments, client, output))


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--room", default="", help="only of this room")
    parser.add_argument("--user", default="", help="only single files of this user")
    parser.add_argument("--task", default="", help="only of this task")
    parser.add_argument("--prefix", default="", help="only files whose object key starts with this")
    parser.add_argument(
        "--label",
        type=reader(read_label),
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only of tasks with this label; may be repeated",
    )
    parser.add_argument(
        "--since", type=reader(read_time), metavar="TIME", help="only what ends after this time"
    )
    parser.add_argument("--until", type=reader(read_time), metavar="TIME", help="only what starts before it")
    add_client_arguments(parser)


def _add_get(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE_ID", help="id of the file")
    parser.add_argument(
        "--output", type=Path, metavar="PATH", help="download it there, and compare size and SHA-256"
    )
    add_client_arguments(parser)


def _add_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE_ID", help="id of the file")
    parser.add_argument("--lifetime", type=reader(read_span), metavar="SPAN", help="1s to 7d; default: 60m")
    add_client_arguments(parser)


def _add_delete(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE_ID", nargs="+", help="ids of the files")
    add_client_arguments(parser)


def _add_abandon(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE_ID", help="id of the file; its media is kept on the server's disk"
    )
    add_client_arguments(parser)


def _add_join(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recording", metavar="RECORDING_ID", help="id of the recording")
    parser.add_argument(
        "--container",
        type=choice(media_pb2.Container.DESCRIPTOR),
        metavar="KIND",
        help="mp3, ogg, wav, aac or m4a; needed where the recording has several",
    )
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="first segment; default: 0")
    parser.add_argument(
        "--last", type=int, metavar="NUMBER", help="last segment; default: the recording's last"
    )
    parser.add_argument("--wait", action="store_true", help="until the file is in the store; show it")
    add_client_arguments(parser)


async def _list(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = file_pb2.ListFilesRequest(
        app_id=arguments.app,
        key_prefix=arguments.prefix,
        room_id=arguments.room,
        user_id=arguments.user,
        task_id=arguments.task,
        start_time=arguments.since,
        end_time=arguments.until,
        labels=dict(arguments.label),
    )
    files = [file async for file in client.list_files(request)]
    output.show_all(files, file_table(files), "no files")
    return ExitCode.DONE


async def _get(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = file_pb2.GetFileRequest(app_id=arguments.app, file_id=arguments.file)
    file = (await client.files.GetFile(request)).file
    if arguments.output is not None:
        playback = await client.files.CreatePlaybackUrl(
            file_pb2.CreatePlaybackUrlRequest(app_id=arguments.app, file_id=arguments.file)
        )
        with _progress(output, file) as advance:
            await asyncio.to_thread(_download, playback.url, file, arguments.output, arguments.ca, advance)
        output.note(f"{arguments.output}: {show_size(file.size_bytes)}, SHA-256 as recorded")
    output.show(file, file_table([file]))
    return ExitCode.DONE


async def _url(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = file_pb2.CreatePlaybackUrlRequest(
        app_id=arguments.app, file_id=arguments.file, lifetime=arguments.lifetime
    )
    reply = await client.files.CreatePlaybackUrl(request)
    output.show(reply, reply.url)
    output.note(f"it plays until {show_time(reply.expire_time)}")
    return ExitCode.DONE


async def _delete(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    for file_id in arguments.files:
        request = file_pb2.DeleteFileRequest(app_id=arguments.app, file_id=file_id)
        file = (await client.files.DeleteFile(request)).file
        output.show(file, f"{file.file_id} is deleted: {file.object_key}")
    return ExitCode.DONE


async def _abandon(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = file_pb2.AbandonFileRequest(app_id=arguments.app, file_id=arguments.file)
    file = (await client.files.AbandonFile(request)).file
    output.show(file, f"{file.file_id} is given up: {file.object_key}")
    output.note("its media lies in the folder aside of the server's spool")
    return ExitCode.DONE


async def _join(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = file_pb2.JoinSegmentsRequest(
        app_id=arguments.app,
        recording_id=arguments.recording,
        container=arguments.container,
        first_segment_id=arguments.first,
        last_segment_id=arguments.last,
    )
    file = (await client.files.JoinSegments(request)).file
    if arguments.wait:
        output.note("ordered; waiting for the file")
        file = await _joined(client, arguments.app, file)
    output.show(file, file_table([file]))
    return ExitCode.DONE


async def _joined(client: Client, app_id: str, file: segment_pb2.Segment) -> segment_pb2.Segment:
    request = file_pb2.GetFileRequest(app_id=app_id, file_id=file.file_id)
    while file.state < segment_pb2.SEGMENT_STATE_UPLOADED:
        await asyncio.sleep(_LOOK_SECONDS)
        file = (await client.files.GetFile(request)).file
    if file.state != segment_pb2.SEGMENT_STATE_UPLOADED:
        state = label(segment_pb2.SegmentState.DESCRIPTOR, file.state)
        raise CommandError(f"the file {file.file_id} is {state}; its event says why")
    return file


@contextmanager
def _progress(output: Output, file: segment_pb2.Segment) -> Iterator[Callable[[int], None]]:
    """Shows people with a terminal how much has come; gives what to call with each piece's bytes."""
    if output.as_json or not output.notes.is_terminal:
        yield lambda size_bytes: None
        return
    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=output.notes, transient=True) as progress:
        task = progress.add_task("download", total=file.size_bytes)
        yield lambda size_bytes: progress.advance(task, size_bytes)


def _download(
    url: str, file: segment_pb2.Segment, path: Path, ca: Path | None, advance: Callable[[int], None]
) -> None:
    # The target appears when the whole file is there and right.
    partial = path.with_name(f"{path.name}.part")
    digest, size = hashlib.sha256(), 0
    context = ssl.create_default_context(cafile=ca) if url.startswith("https:") else None
    try:
        with (
            urllib.request.urlopen(url, timeout=_SILENCE_SECONDS, context=context) as source,
            partial.open("wb") as sink,
        ):
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                sink.write(chunk)
                advance(len(chunk))
        if size != file.size_bytes or digest.hexdigest() != file.sha256:
            raise CommandError(
                f"what was downloaded is not the recorded file: {size} bytes, SHA-256 {digest.hexdigest()} "
                f"instead of {file.size_bytes} bytes, {file.sha256}"
            )
        os.replace(partial, path)
    except urllib.error.URLError as error:
        raise CommandError(f"the download failed: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
