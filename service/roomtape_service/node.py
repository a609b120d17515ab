"""`python -m roomtape_service.node`: the process of a node, started and restarted by the supervisor."""

import argparse
import asyncio
import json
import os
import random
import signal
import sys
from pathlib import Path

import structlog
import uvloop

from roomtape_service.app import Node
from roomtape_service.clock import SystemClock
from roomtape_service.ids import RandomIds
from roomtape_service.observability.logging import configure_logging
from roomtape_service.settings import Settings, SettingsError, parse

__all__ = ["main"]

log = structlog.get_logger(__name__)

_EXIT_SETTINGS = 2
"""The settings can't work: starting again does not help."""


def main(arguments: list[str] | None = None) -> int:
    """Runs a node until SIGTERM, SIGINT, or the end of its lifeline; returns the exit code."""
    parser = argparse.ArgumentParser(prog="roomtape-node")
    parser.add_argument("--settings", type=Path, required=True, help="JSON file with all settings")
    parser.add_argument("--ready", type=Path, help="file to write the ports into when the node serves")
    parser.add_argument("--lifeline", type=int, help="descriptor of a pipe that ends with the supervisor")
    options = parser.parse_args(arguments)
    settings = parse(json.loads(options.settings.read_text("utf-8")))
    configure_logging(settings)
    try:
        uvloop.run(_run(settings, options.ready, options.lifeline))
    except SettingsError as error:
        for problem in error.problems:
            log.error("settings_refused", problem=problem)
        return _EXIT_SETTINGS
    return 0


async def _run(settings: Settings, ready: Path | None, lifeline: int | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if lifeline is not None:
        loop.add_reader(lifeline, stop.set)
    node = Node(settings, SystemClock(), RandomIds(), random.Random())
    try:
        await node.start()
        if ready is not None:
            _write_ready(ready, {"port": node.port, "http_port": node.http_port})
        await stop.wait()
    finally:
        await node.aclose()


def _write_ready(path: Path, ports: dict[str, int]) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(ports), "utf-8")
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main())
