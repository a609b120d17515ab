"""Schedules of calls, restarts and watchers, played with real nodes; what goes over the wire is recorded."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from sqlalchemy import make_url, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from roomtape.v1 import event_pb2, task_pb2
from roomtape_service.database.tables import events, meta, tasks
from tests.support.waiting import eventually
from tests.support.warm_nodes import APP, WarmNodes
from tests.support.watch_players import Caller, Watcher, channel_to
from tests.support.watch_traffic import Call, Traffic

__all__ = ["MOST_WATCHERS", "Cancel", "GoOn", "Hear", "Pause", "Play", "Record", "Restart", "Step", "Watch"]

MOST_WATCHERS = 6
"""Of a schedule; who comes after them does not watch."""


@dataclass(frozen=True)
class Watch:
    """Somebody begins to watch."""

    wants: str
    origin: event_pb2.WatchOrigin.ValueType
    is_slow: bool


@dataclass(frozen=True)
class Record:
    """So many rooms are recorded at the same time; the next step comes when so many calls have been answered."""

    rooms: int
    until_answered: int


@dataclass(frozen=True)
class Pause:
    """A watcher reads no more."""

    watcher: int


@dataclass(frozen=True)
class GoOn:
    """A watcher reads again."""

    watcher: int


@dataclass(frozen=True)
class Cancel:
    """A watcher ends its stream, and comes again with the token of some messages ago."""

    watcher: int
    back: int


@dataclass(frozen=True)
class Restart:
    """The node is killed, or stops in order, and another one starts."""

    kills: bool


@dataclass(frozen=True)
class Hear:
    """A watcher gets everything that is there."""

    watcher: int


Step = Watch | Record | Pause | GoOn | Cancel | Restart | Hear


class Play:
    """Plays schedules one after the other, with the same log."""

    def __init__(self, nodes: WarmNodes) -> None:
        self._nodes = nodes
        self._engine = _engine_of(nodes.settings.database_url)
        self._schedules = 0
        self._rooms = 0
        self.restarts = 0
        self.streams = 0
        self.messages = 0

    async def run(self, schedule: Sequence[Step]) -> Traffic:
        """What went over the wire."""
        self._schedules += 1
        async with AsyncExitStack() as stack:
            channel = await stack.enter_async_context(channel_to(self._nodes.target))
            scene = _Scene()
            for step in schedule:
                match step:
                    case Watch() if len(scene.watchers) < MOST_WATCHERS:
                        wanted = await self._filter(step.wants)
                        watcher = Watcher(self._nodes.target, APP, wanted, step.origin, is_slow=step.is_slow)
                        scene.watchers.append(watcher)
                        watcher.start()
                        stack.push_async_callback(watcher.let_go)
                    case Record():
                        for _ in range(step.rooms):
                            self._rooms += 1
                            scene.callers.append(Caller(channel, APP, f"r{self._rooms}"))
                            scene.calling.append(asyncio.create_task(scene.callers[-1].run()))
                        answered = scene.answered + step.until_answered
                        await eventually(
                            lambda answered=answered: scene.answered >= answered or scene.is_quiet,  # type: ignore[misc]
                            "calls are answered",
                        )
                    case Pause():
                        scene.watcher(step.watcher).pause()
                    case GoOn():
                        scene.watcher(step.watcher).go_on()
                    case Cancel():
                        scene.watcher(step.watcher).cancel(step.back)
                    case Hear():
                        watcher = scene.watcher(step.watcher)
                        watcher.go_on()
                        log, _ = await self._stored()
                        await self._heard(watcher, log)
                    case Restart():
                        await self._restart(kills=step.kills)
            await asyncio.gather(*scene.calling)
            await eventually(self._is_over, "all tasks are over")
            log, _ = await self._stored()
            for watcher in scene.watchers:
                watcher.go_on()
            for watcher in scene.watchers:
                await self._heard(watcher, log)
        log, states = await self._stored()
        async with self._engine.connect() as connection:
            epoch = await connection.scalar(select(meta.c.value).where(meta.c.key == "epoch"))
        traffic = Traffic(
            APP,
            str(epoch),
            log,
            [watcher.streams for watcher in scene.watchers],
            [call for caller in scene.callers for call in caller.calls],
            states,
        )
        self.streams += sum(1 for _ in traffic.streams)
        self.messages += sum(len(stream.messages) for stream in traffic.streams)
        return traffic

    async def _restart(self, *, kills: bool) -> None:
        self.restarts += 1
        if kills:
            await self._nodes.kill()
        else:
            await self._nodes.stop()
        await self._nodes.start()

    async def _heard(self, watcher: Watcher, log: Sequence[event_pb2.Event]) -> None:
        def has_heard() -> bool:
            if watcher.failure is not None:
                raise watcher.failure
            return watcher.has_all_of(log)

        await eventually(has_heard, f"a watcher of {watcher.wanted} has everything")

    async def _filter(self, wants: str) -> event_pb2.EventFilter:
        wanted = event_pb2.EventFilter()
        match wants:
            case "room":
                wanted.room_ids.extend([f"r{self._rooms + 1}", f"r{self._rooms + 3}"])
            case "types":
                wanted.types.extend(
                    [event_pb2.EVENT_TYPE_TASK_STATE_CHANGED, event_pb2.EVENT_TYPE_ROOM_CLOSED]
                )
            case "label":
                wanted.labels["of"] = str(self._rooms % 10)
            case "task" | "tasks":
                _, states = await self._stored()
                wanted.task_ids.extend(sorted(states)[-1 if wants == "task" else -5 :])
        return wanted

    async def _is_over(self) -> bool:
        _, states = await self._stored()
        return set(states.values()) <= {task_pb2.TASK_STATE_COMPLETED}

    async def _stored(self) -> tuple[list[event_pb2.Event], dict[str, int]]:
        """The log and the states of tasks, as of one moment."""
        async with self._engine.connect() as connection:
            payloads = await connection.scalars(
                select(events.c.payload).where(events.c.app_id == APP).order_by(events.c.sequence)
            )
            log = [event_pb2.Event.FromString(payload) for payload in payloads]
            states = await connection.execute(select(tasks.c.task_id, tasks.c.state))
            return log, {row.task_id: row.state for row in states}


@dataclass
class _Scene:
    watchers: list[Watcher] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    calling: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return sum(1 for call in self._calls() if call.answered_ns)

    @property
    def is_quiet(self) -> bool:
        return all(task.done() for task in self.calling)

    def watcher(self, number: int) -> Watcher:
        return self.watchers[number % len(self.watchers)]

    def _calls(self) -> Sequence[Call]:
        return [call for caller in self.callers for call in caller.calls]


def _engine_of(url: str) -> AsyncEngine:
    """Looks into the database while a node has it open."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return create_async_engine(parsed.set(drivername="sqlite+aiosqlite"), poolclass=NullPool)
    return create_async_engine(
        parsed.set(drivername="postgresql+asyncpg"), poolclass=NullPool, isolation_level="REPEATABLE READ"
    )
