"""`roomtape demo`: three speakers, recorded on this machine and checked, in half a minute."""

import argparse
import asyncio
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from roomtape.client import RoomtapeError
from roomtape.v1 import event_pb2
from roomtape_service.cli.calling import ExitCode
from roomtape_service.cli.interrupts import interrupts
from roomtape_service.cli.output import Output
from roomtape_service.demo.failure import DemoError
from roomtape_service.demo.judgement import judge
from roomtape_service.demo.performance import perform
from roomtape_service.demo.proof import manifest_path, prove
from roomtape_service.demo.report import Report
from roomtape_service.demo.script import SCRIPT
from roomtape_service.demo.server import running_server

__all__ = ["add_arguments", "run"]

_DEFAULT_FOLDER = Path("roomtape-demo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to, and how much to tell."""
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=_DEFAULT_FOLDER,
        help=f"each run makes a new folder in it; default: {_DEFAULT_FOLDER}",
    )
    parser.add_argument("--verbose", action="store_true", help="list every check, not only those that fail")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for programs")
    parser.epilog = "Exit codes: 0 all is well; 1 something does not hold or could not be done; 130 Ctrl-C."


def run(arguments: argparse.Namespace) -> int:
    """Plays, records and checks; 0 only when everything holds."""
    output = Output(as_json=arguments.json)
    try:
        return asyncio.run(_demo(arguments, output))
    except (asyncio.CancelledError, KeyboardInterrupt):
        output.note("stopped before its end")
        return ExitCode.INTERRUPTED
    except (DemoError, RoomtapeError, OSError) as error:
        output.error(f"the demo could not be played: {error}", {"message": str(error)})
        return ExitCode.FAILED


async def _demo(arguments: argparse.Namespace, output: Output) -> ExitCode:
    begun = time.monotonic()
    folder = (arguments.folder / f"{datetime.now().astimezone():%Y-%m-%d-%H-%M-%S}").absolute()
    folder.mkdir(parents=True)
    report = Report(output.console, SCRIPT)

    def show(event: event_pb2.Event) -> None:
        if output.as_json:
            output.show_json(event)
        else:
            report.event(event)

    task = asyncio.current_task()
    assert task is not None
    with interrupts(task.cancel):
        output.note(f"starting a server in {folder}")
        async with running_server(folder) as server:
            performance = await perform(server.target, SCRIPT, show)
            output.note("everything is stored; stopping the server")
        judgement = await asyncio.to_thread(judge, performance)
        proof = await prove(performance.manifest)
        judgement = replace(judgement, findings=[*judgement.findings, *proof])
    if output.as_json:
        for finding in judgement.findings:
            output.show_json({"what": finding.what, "ok": finding.ok, "facts": finding.facts})
        output.show_json({"ok": judgement.ok, "files": [str(each.path) for each in judgement.heard]})
    else:
        report.recorded(judgement)
        report.judged(judgement, verbose=arguments.verbose)
        report.proven(manifest_path(performance.manifest))
        output.note(f"it took {time.monotonic() - begun:.0f} s; the server's log is {server.log}")
    return ExitCode.DONE if judgement.ok else ExitCode.FAILED
