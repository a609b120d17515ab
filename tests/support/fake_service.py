"""A supervisor with fake children, as a process of its own: `fake_service.py DATA_DIR`."""

import asyncio
import os
import sys

from roomtape_service.observability.logging import configure
from roomtape_service.settings import parse
from roomtape_service.supervisor import Programs, Supervisor
from tests.support.journals import note

settings = parse(
    {
        "data_dir": sys.argv[1],
        "listen": "127.0.0.1:0",
        "http_listen": "127.0.0.1:0",
        "workers": 2,
        "drain_seconds": 0,
    }
)
configure("info", "json", "supervisor")


async def serve() -> int:
    return await Supervisor(
        settings,
        lambda ready: note(settings.data_dir, "supervisor", f"ready {os.getpid()} {ready.listen}"),
        environment=os.environ,
        programs=Programs("tests.support.fake_node", "tests.support.fake_worker"),
    ).run()


sys.exit(asyncio.run(serve()))
