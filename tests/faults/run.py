"""One run: the service with its store, publishers and a watcher as processes, through everything on the schedule."""

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from google.protobuf import field_mask_pb2, json_format

from roomtape.client import Client, RetrySettings
from roomtape.v1 import (
    application_pb2,
    event_pb2,
    room_pb2,
    segment_pb2,
    storage_pb2,
    task_pb2,
)
from tests.faults.cast import APP, CAST, SCENES, Scene, role_name
from tests.faults.diary import read_acknowledged
from tests.faults.errands import Errands
from tests.faults.failpoint_file import FailpointFile
from tests.faults.schedule import Kill, Step, Trouble
from tests.faults.stores import FaultyStore
from tests.faults.watcher import read_events
from tests.support.fault_proxy import Fault, Request, Rule, slow_down
from tests.support.server import ServerProcess
from tests.support.waiting import eventually

__all__ = ["PART_BYTES", "Outcome", "Run"]

PART_BYTES = 5 << 20
"""The least that every vendor takes: files come in parts early."""

_RECOVERY_SECONDS = 60.0
_FAILPOINT_SECONDS = 5.0
_LEAVE_SECONDS = 90.0
_CALL_SECONDS = 120.0
_COMPLETE_SECONDS = 120.0
_CLOCK_STEP_SECONDS = 3600.0
_PATIENT = RetrySettings(attempts=200, max_seconds=0.5)


@dataclass(slots=True)
class Outcome:
    """What a run left, for the verdict."""

    folder: Path
    segments: Mapping[str, Sequence[segment_pb2.Segment]] = field(default_factory=dict)
    """By room."""
    tasks: Mapping[str, str] = field(default_factory=dict)
    """By room."""
    kills: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    unreached: list[str] = field(default_factory=list)
    """Failpoints that nobody came to while they were armed."""
    longest_recovery_seconds: float = 0.0
    newest_sequence: int = 0


class Run:
    """`async with` starts everything; `go` takes one step; `finish` ends in order."""

    def __init__(self, folder: Path, store: FaultyStore, seed: int) -> None:
        self.outcome = Outcome(folder)
        self._folder = folder
        self._store = store
        self._seed = seed
        self.failpoints = FailpointFile(folder / "failpoints", PART_BYTES)
        self.server = ServerProcess(
            folder / "data",
            environment=store.environment,
            workers=2,
            drain_seconds=1,
            failpoints_file=self.failpoints.path,
        )
        self._children: list[asyncio.subprocess.Process] = []
        self._client: Client | None = None
        self._errands: Errands | None = None

    @property
    def client(self) -> Client:
        """Tries for as long as the service may be away."""
        assert self._client is not None
        return self._client

    async def __aenter__(self) -> "Run":
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._errands is not None:
            await self._errands.aclose()
        for child in self._children:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()
        if self._client is not None:
            await self._client.aclose()
        await self.server.kill()

    async def _start(self) -> None:
        await self.server.start()
        self._client = Client(self.server.target, timeout_seconds=_CALL_SECONDS, retry=_PATIENT)
        await self._set_storage(self._store.settings())
        self.outcome.tasks = {scene.room_id: await self._record(scene) for scene in SCENES}
        target, seed = self.server.target, str(self._seed)
        await self._spawn("tests.faults.watcher", target, APP, str(self._folder / "events"))
        await self._spawn("tests.faults.publisher", target, str(self._folder), seed)
        self._errands = Errands(self.client, self._seed)
        self._errands.start()
        await self._progress({}, "publishing begins")

    async def _record(self, scene: Scene) -> str:
        clock = room_pb2.ROOM_CLOCK_MEDIA if scene.is_media else room_pb2.ROOM_CLOCK_ARRIVAL
        await self.client.rooms.CreateRoom(
            room_pb2.CreateRoomRequest(app_id=APP, room_id=scene.room_id, clock=clock)
        )
        output = task_pb2.OutputSettings(single_containers=scene.singles, mixed_containers=scene.mixes)
        output.segment_duration.FromNanoseconds(round(scene.segment_seconds * 1e9))
        request = task_pb2.StartRecordRequest(
            app_id=APP,
            room_id=scene.room_id,
            mode=scene.mode,
            subscription=task_pb2.Subscription(audio=task_pb2.UserFilter(allow_user_ids=scene.allowed)),
            output=output,
            request_id=f"start-{scene.room_id}",
        )
        return (await self.client.recording.StartRecord(request)).task.task_id

    async def _spawn(self, module: str, *arguments: str) -> None:
        log = (self._folder / f"{module.rpartition('.')[2]}.log").open("ab")
        with log:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, *arguments, stdout=log, stderr=log
            )
        self._children.append(child)

    async def _set_storage(self, settings: storage_pb2.StorageSettings) -> None:
        request = application_pb2.UpdateApplicationRequest(
            application=application_pb2.Application(app_id=APP, storage=settings),
            update_mask=field_mask_pb2.FieldMask(paths=["storage"]),
        )
        await self.client.applications.UpdateApplication(request)

    async def go(self, step: Step) -> None:
        """Makes trouble, kills, waits until recording goes on, and ends the trouble."""
        started = time.monotonic()
        if step.trouble is not None:
            await self._begin(step.trouble)
            self.outcome.troubles[step.trouble.name] += 1
        await asyncio.sleep(step.pause_seconds)
        before = self._acknowledged()
        await self._kill(step)
        if not self.server.is_running:
            await self.server.start()
        await self._progress(before, f"recording goes on after: {step}")
        await self._end(step.trouble)
        seconds = time.monotonic() - started
        self.outcome.longest_recovery_seconds = max(self.outcome.longest_recovery_seconds, seconds)

    async def _kill(self, step: Step) -> None:
        kind = step.kill
        match kind:
            case Kill.FAILPOINT:
                await self._kill_at(step)
                return
            case Kill.SUPERVISOR:
                await self.server.kill_supervisor()
            case Kill.ALL:
                await self.server.kill()
            case Kill.STORE:
                assert self._store.program is not None
                await asyncio.to_thread(self._store.program.kill)
                await asyncio.to_thread(self._store.program.start)
            case _:
                victim = await self._victim(kind, step.at)
                with suppress(psutil.NoSuchProcess):
                    victim.kill()
        self.outcome.kills[kind.value] += 1

    async def _victim(self, kind: Kill, number: int) -> psutil.Process:
        async with asyncio.timeout(_RECOVERY_SECONDS):
            while True:
                node, workers = self.server.node(), self.server.workers()
                if kind is Kill.NODE and node is not None:
                    return node
                if kind is Kill.WORKER and workers:
                    return workers[number % len(workers)]
                await asyncio.sleep(0.02)

    async def _kill_at(self, step: Step) -> None:
        """Who comes to the failpoint dies there; if nobody does in time, the node dies anywhere."""
        fired = self.failpoints.fired
        self.failpoints.arm({"name": step.failpoint, "action": "kill", "at": step.at})
        try:
            await eventually(lambda: self.failpoints.fired > fired, "", timeout_seconds=_FAILPOINT_SECONDS)
        except AssertionError:
            self.outcome.unreached.append(step.failpoint)
            victim = await self._victim(Kill.NODE, 0)
            with suppress(psutil.NoSuchProcess):
                victim.kill()
            self.outcome.kills[Kill.NODE.value] += 1
        else:
            self.outcome.kills[Kill.FAILPOINT.value] += 1
        finally:
            self.failpoints.arm()

    async def _begin(self, trouble: Trouble) -> None:
        proxy = self._store.proxy
        match trouble:
            case Trouble.CLOCK_AHEAD:
                self.failpoints.set_clock(_CLOCK_STEP_SECONDS)
            case Trouble.CLOCK_BEHIND:
                self.failpoints.set_clock(-_CLOCK_STEP_SECONDS)
            case Trouble.WRONG_KEY:
                wrong = self._store.settings(secret_access_key="wrong" * 8)
                await self._set_storage(wrong)
            case _ if proxy is None:
                pass
            case Trouble.RESETS:
                proxy.reset_all()
            case Trouble.REFUSED:
                proxy.refuse()
                proxy.reset_all()
            case Trouble.SILENCE:
                proxy.is_silent = True
                proxy.reset_all()
            case Trouble.LATENCY:
                proxy.latency_seconds = 0.3
            case Trouble.THIN:
                proxy.bytes_per_second = 1 << 20
            case _:
                proxy.rules += _RULES[trouble]()

    async def _end(self, trouble: Trouble | None) -> None:
        if trouble is Trouble.WRONG_KEY:
            await self._set_storage(self._store.settings())
        self.failpoints.set_clock(0.0)
        if self._store.proxy is not None:
            self._store.proxy.heal()
            await self._store.proxy.start()

    def _acknowledged(self) -> dict[str, tuple[int, int]]:
        names = [role_name(scene, role) for scene, role in CAST]
        return {name: read_acknowledged(self._folder, name)[:2] for name in names}

    async def _progress(self, before: Mapping[str, tuple[int, int]], what: str) -> None:
        """Returns when frames of every publisher were acknowledged since."""
        late: list[str] = []

        def all_moved() -> bool:
            now = self._acknowledged()
            late[:] = [name for name, mark in now.items() if mark <= before.get(name, (0, 0))]
            self._check_children()
            return not late

        try:
            await eventually(all_moved, what, timeout_seconds=_RECOVERY_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}; nothing was acknowledged of {', '.join(late)}") from None

    def _check_children(self) -> None:
        for child in self._children:
            assert child.returncode is None, f"a child ended with code {child.returncode}; see its log"

    async def finish(self) -> Outcome:
        """Everybody leaves, tasks stop, all is stored, the service stops in order."""
        outcome = self.outcome
        watcher, publisher = self._children
        publisher.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_LEAVE_SECONDS):
            assert await publisher.wait() == 0, "the publishers failed; see publisher.log"
        assert self._errands is not None
        outcome.tasks = {**outcome.tasks, **await self._errands.finish()}
        outcome.segments = {
            room_id: await self._complete(room_id, task_id) for room_id, task_id in outcome.tasks.items()
        }
        async for event in self.client.watch_events(
            APP,
            origin=event_pb2.WATCH_ORIGIN_OLDEST,
            filter=event_pb2.EventFilter(task_ids=[outcome.tasks[SCENES[-1].room_id]]),
        ):
            outcome.newest_sequence = max(outcome.newest_sequence, event.sequence)
        events = self._folder / "events"

        def watcher_is_there() -> bool:
            seen = read_events(events)
            return bool(seen) and seen[-1].sequence >= outcome.newest_sequence

        await eventually(watcher_is_there, "the watcher has all events")
        watcher.send_signal(signal.SIGTERM)
        assert await watcher.wait() == 0, "the watcher failed; see watcher.log"
        self._children.clear()
        assert await self.server.stop() == 0
        return outcome

    async def _complete(self, room_id: str, task_id: str) -> Sequence[segment_pb2.Segment]:
        request = task_pb2.StopRecordRequest(app_id=APP, task_id=task_id, request_id=f"stop-{task_id}")
        await self.client.recording.StopRecord(request)
        try:
            async with asyncio.timeout(_COMPLETE_SECONDS):
                described = await self.client.wait_until_complete(APP, task_id)
        except TimeoutError:
            request_now = task_pb2.DescribeRecordInfoRequest(app_id=APP, task_id=task_id)
            described = await self.client.recording.DescribeRecordInfo(request_now)
            waiting = [each for each in described.segments if each.state < segment_pb2.SEGMENT_STATE_UPLOADED]
            raise AssertionError(
                f"{room_id}: the task is {task_pb2.TaskState.Name(described.task.state)} after "
                f"{_COMPLETE_SECONDS:.0f} s, and {len(waiting)} segments wait: {waiting[:2]}"
            ) from None
        assert described.task.state == task_pb2.TASK_STATE_COMPLETED, described.task
        return sorted(described.segments, key=lambda each: (each.kind, each.user_id, each.segment_id))

    def save(self, steps: Sequence[Step], error: BaseException | None) -> None:
        """Leaves a word beside what the run leaves."""
        lines = [f"seed {self._seed}", *map(str, steps), json.dumps(self.outcome.kills), repr(error)]
        (self._folder / "schedule.txt").write_text("\n".join(lines))
        described = {
            room_id: [json_format.MessageToDict(each) for each in segments]
            for room_id, segments in self.outcome.segments.items()
        }
        (self._folder / "segments.json").write_text(json.dumps(described, indent=1))


def _is_part(request: Request) -> bool:
    return request.method == "PUT"


def _is_complete(request: Request) -> bool:
    return request.method == "POST" and "uploadId=" in request.target


_RULES = {
    Trouble.RESET_PART: lambda: [Rule(Fault.RESET, _is_part, 3, after_bytes=200_000)],
    Trouble.HALF_CLOSE: lambda: [Rule(Fault.HALF_CLOSE, _is_part, 3, after_bytes=200_000)],
    Trouble.STALL: lambda: [Rule(Fault.STALL, _is_part, 2, after_bytes=100_000)],
    Trouble.LOST_COMPLETE: lambda: [Rule(Fault.LOSE_ANSWER, _is_complete, 2)],
    Trouble.LOST_ANSWER: lambda: [Rule(Fault.LOSE_ANSWER, _is_part, 4)],
    Trouble.SLOW_DOWN: lambda: [Rule(Fault.ANSWER, times=8)],
    Trouble.UNAVAILABLE: lambda: [Rule(Fault.ANSWER, times=8, answer=slow_down(503, "ServiceUnavailable"))],
    Trouble.TOO_MANY: lambda: [Rule(Fault.ANSWER, times=8, answer=slow_down(429, "TooManyRequests"))],
}
