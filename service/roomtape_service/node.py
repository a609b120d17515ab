"""`roomtape_service.node --settings FILE`: the process of a node, started and restarted by the supervisor."""

import argparse
import asyncio
import gc
import json
import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
import uvloop

from roomtape_service.app import Node
from roomtape_service.clock import SystemClock
from roomtape_service.ids import RandomIds
from roomtape_service.readiness import EXIT_UNUSABLE, Ready, announce
from roomtape_service.settings import Address, Settings, SettingsError, parse
from roomtape_service.storage.secrets import SecretKeyError

__all__ = ["main"]

_WORKER_SECONDS = 30.0
"""How long workers may take to start; after it the node serves without them, and says so."""

_GC_THRESHOLDS = (20_000, 20, 100)
"""Thousands of open streams are hundreds of thousands of objects that no collection frees: by default Python looks
through them so often that one event to 5,000 watchers takes twice as long."""

log = structlog.get_logger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a node until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="roomtape-node", allow_abbrev=False)
    parser.add_argument("--settings", type=Path, required=True, help="JSON file with all settings")
    options = parser.parse_args(arguments)
    settings = parse(json.loads(options.settings.read_text("utf-8")))
    try:
        uvloop.run(_run(settings))
    except SettingsError as error:
        for problem in error.problems:
            log.error("settings_refused", problem=problem)
        return EXIT_UNUSABLE
    except SecretKeyError as error:
        log.error("settings_refused", problem=f"secret_key_file: {error}")
        return EXIT_UNUSABLE
    return 0


async def _run(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    node = Node(settings, SystemClock(), RandomIds(), random.Random(), environment=os.environ)
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        await node.start()
        if not await node.wait_for_worker(_WORKER_SECONDS):
            log.warning("no_worker", seconds=_WORKER_SECONDS)
        announce(Ready(listen=str(Address(settings.listen.host, node.port)), http_listen=node.http_address))
        await stop.wait()
    finally:
        await node.aclose()


if __name__ == "__main__":
    sys.exit(main())
