"""Five thousand watchers in other processes come at the same moment, as after a restart: all are let in."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.server import running_server
from tests.support.watch_crowds import EVENTS_A_ROOM, crowd_of, make_events

pytestmark = pytest.mark.system

APP = "app"
PROCESSES = 2
WATCHERS = 5000
ROOMS = 1


async def test_five_thousand_streams_opened_at_once_all_get_everything(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(running_server(tmp_path))
        crowds = [
            await stack.enter_async_context(
                crowd_of(server.target, APP, WATCHERS // PROCESSES, stalled=0, events=ROOMS * EVENTS_A_ROOM)
            )
            for _ in range(PROCESSES)
        ]
        for crowd in crowds:
            assert (await crowd.hear())["open"] == WATCHERS // PROCESSES
        await make_events(server.target, APP, ROOMS)
        for crowd in crowds:
            crowd.wake()
            facts = await crowd.hear()
            # Nobody was turned away, and nobody had to come again.
            assert (facts["events"], facts["resumes"]) == (WATCHERS // PROCESSES * ROOMS * EVENTS_A_ROOM, 0)
