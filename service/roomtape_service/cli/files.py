"""`roomtape files`: the library of what was recorded."""

import argparse
import asyncio
import hashlib
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from roomtape.client import Client
from roomtape.v1 import file_pb2, segment_pb2
from roomtape_service.cli.calling import CommandError, ExitCode, call
from roomtape_service.cli.options import add_actions, add_client_arguments, reader
from roomtape_service.cli.output import Output
from roomtape_service.cli.tables import file_table
from roomtape_service.cli.texts import read_span, read_time, show_size, show_time

__all__ = ["add_arguments", "run"]

_CHUNK_BYTES = 1024 * 1024
_SILENCE_SECONDS = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions."""
    add_actions(
        parser,
        {
            "list": ("list files that are in the store, oldest first", _add_list),
            "get": ("show a file's entry, or download the file", _add_get),
            "url": ("make a URL that plays a file", _add_url),
        },
    )


def run(arguments: argparse.Namespace) -> int:
    """Does the action."""
    work = {"list": _list, "get": _get, "url": _url}[arguments.action]
    return call(arguments, lambda client, output: work(arguments, client, output))


def _add_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--room", default="", help="only of this room")
    parser.add_argument("--user", default="", help="only single files of this user")
    parser.add_argument("--task", default="", help="only of this task")
    parser.add_argument("--prefix", default="", help="only files whose object key starts with this")
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


async def _list(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    request = file_pb2.ListFilesRequest(
        app_id=arguments.app,
        key_prefix=arguments.prefix,
        room_id=arguments.room,
        user_id=arguments.user,
        task_id=arguments.task,
        start_time=arguments.since,
        end_time=arguments.until,
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
        await asyncio.to_thread(_download, playback.url, file, arguments.output, arguments.ca)
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


def _download(url: str, file: segment_pb2.Segment, path: Path, ca: Path | None) -> None:
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
