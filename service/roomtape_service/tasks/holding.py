"""What time alone does: nobody comes back to a broken connection, or to a task that is held."""

import asyncio
from collections.abc import Awaitable

import structlog

from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.rooms.participants import Participants
from roomtape_service.rooms.rooms import Rooms
from roomtape_service.tasks.orders import TaskOrders
from roomtape_service.tasks.tasks import Tasks

__all__ = ["RESUME_WAIT_NS", "Holding"]

RESUME_WAIT_NS = 30 * NANOSECONDS
"""How long a participant whose connection broke stays in the room, as the contract says at Publish."""

log = structlog.get_logger(__name__)


class Holding:
    """Looks at regular times for what has waited long enough."""

    def __init__(
        self,
        rooms: Rooms,
        participants: Participants,
        tasks: Tasks,
        orders: TaskOrders,
        clock: Clock,
        *,
        interval_seconds: float = 1.0,
        resume_wait_ns: int = RESUME_WAIT_NS,
    ) -> None:
        self._rooms = rooms
        self._participants = participants
        self._tasks = tasks
        self._orders = orders
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._resume_wait_ns = resume_wait_ns

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            await asyncio.sleep(self._interval_seconds)
            await self.look()

    async def look(self) -> None:
        """Lets those leave who did not come back, and stops the tasks that were held for long enough."""
        now_ns = self._clock.now_ns()
        for room in self._rooms.everywhere():
            for who in list(room.participants.values()):
                if who.lost_at_ns is not None and now_ns - who.lost_at_ns >= self._resume_wait_ns:
                    log.info("participant_not_back", room_id=room.room_id, user_id=who.user_id)
                    leaving = self._participants.leave(room, who, room.now_ns(who.lost_at_ns), None)
                    await _unless_it_fails(leaving, room_id=room.room_id, user_id=who.user_id)
        for task in self._tasks.running():
            idle_since_ns = task.idle_since_ns
            if idle_since_ns is not None and now_ns - idle_since_ns >= task.profile.hold_ns:
                log.info("task_held_out", task_id=task.task_id)
                await _unless_it_fails(self._orders.expire(task), task_id=task.task_id)


async def _unless_it_fails(work: Awaitable[None], **whose: str) -> None:
    """What can't be done for one is tried again at the next look, and keeps nobody else waiting."""
    try:
        await work
    except Exception:
        log.exception("holding_failed", **whose)
