"""`roomtape verify`: are a task's files in the store what its manifest says?"""

import argparse
import asyncio
import os
from pathlib import Path

from roomtape.client import Client
from roomtape_service.cli.calling import CommandError, ExitCode, call
from roomtape_service.cli.options import add_client_arguments
from roomtape_service.cli.output import Output
from roomtape_service.cli.served import ServedObjects, fetch_manifest
from roomtape_service.cli.verify_report import file_json, hole_table, report_json, summary, verify_table
from roomtape_service.manifest.folder import FolderObjects, root_of
from roomtape_service.manifest.reading import ManifestError, read_manifest
from roomtape_service.manifest.verification import Objects, verify

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to verify, and where it is."""
    parser.add_argument(
        "task",
        metavar="TASK|MANIFEST",
        help="id of a task of the server, or path of a manifest.json whose files are on this machine",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="ROOT",
        help="with a path: the folder in which object keys begin; default: by where the manifest is",
    )
    parser.add_argument(
        "--app", metavar="APP", help="with a task: id of its application; default: ROOMTAPE_APP"
    )
    add_client_arguments(parser, app=False)


def run(arguments: argparse.Namespace) -> int:
    """Verifies; 0 only when all is well."""
    path = Path(arguments.task)
    if arguments.folder is not None or path.suffix == ".json" or path.exists():
        return call(arguments, lambda _client, output: _verify_folder(path, arguments.folder, output))
    return call(arguments, lambda client, output: _verify_served(arguments, client, output))


async def _verify_served(arguments: argparse.Namespace, client: Client, output: Output) -> ExitCode:
    app_id = arguments.app or os.environ.get("ROOMTAPE_APP", "")
    if not app_id:
        raise CommandError("say which application the task is of: --app APP")
    data, sha256 = await fetch_manifest(client, app_id, arguments.task, arguments.ca)
    return await _verify(data, ServedObjects(client, app_id, arguments.ca), output, sha256)


async def _verify_folder(path: Path, root: Path | None, output: Output) -> ExitCode:
    data = await asyncio.to_thread(path.read_bytes)
    if root is None:
        try:
            root = root_of(path, read_manifest(data))
        except ManifestError as error:
            raise CommandError(f"{path} is no manifest: {error}") from error
        if root is None:
            raise CommandError(f"{path} is not where its key says; say with --folder where keys begin")
    elif not root.is_dir():
        raise CommandError(f"{root} is no folder")
    return await _verify(data, FolderObjects(root), output, "")


async def _verify(data: bytes, objects: Objects, output: Output, sha256: str) -> ExitCode:
    if output.as_json:
        report = await verify(
            data, objects, sha256=sha256, told=lambda checked: output.show_json(file_json(checked))
        )
        output.show_json(report_json(report))
    else:
        report = await verify(data, objects, sha256=sha256)
        if report.files:
            output.console.print(verify_table(report))
        if report.holes:
            output.console.print(hole_table(report))
        for finding in report.findings:
            output.console.print(f"{finding.about}: {finding.problem}", style="red", soft_wrap=True)
        output.console.print(summary(report), style="green" if report.ok else "bold red", soft_wrap=True)
    return ExitCode.DONE if report.ok else ExitCode.FAILED
