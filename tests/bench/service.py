"""`roomtape serve` as operators run it: supervisor, node, and a worker for each core, logging to a file."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import grpc
from google.protobuf import field_mask_pb2

from roomtape.v1 import (
    application_pb2,
    application_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    media_pb2,
    room_pb2,
    room_pb2_grpc,
    segment_pb2,
    storage_pb2,
    task_pb2,
    task_pb2_grpc,
    webhook_pb2,
    webhook_pb2_grpc,
)
from tests.bench.processes import family

__all__ = ["APP", "Service"]

APP = "bench"

_CALL_SECONDS = 20.0
_STOP_SECONDS = 40.0
_FILES_SECONDS = 30.0
_POLL_SECONDS = 0.1
_SETTINGS = {
    "listen": "127.0.0.1:0",
    "http_listen": "127.0.0.1:0",
    "log_format": "json",
    "create_default_application": APP,
    "record_calls_per_second": 10_000,
    "record_calls_burst": 10_000,
}


class Service:
    """A service with a new data folder; it runs while the block runs. The log stays below the folder."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """`settings` are added to those of all services of this bench."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._folder = folder
        self._settings = {**_SETTINGS, **settings}
        self._process: subprocess.Popen[str] | None = None
        self._names = 0
        self.target = ""
        """Where gRPC is."""

    @property
    def pid(self) -> int:
        """The supervisor."""
        assert self._process is not None
        return self._process.pid

    @property
    def node_pid(self) -> int:
        """The node."""
        return next(
            process.pid for process in family(self.pid) if "roomtape_service.node" in process.cmdline()
        )

    @property
    def database_file(self) -> Path:
        """Where its state is; a log may be put there before it runs."""
        return self._folder / "roomtape.db"

    @property
    def secret_key_file(self) -> Path:
        """The key of its secrets; it may be put there before it runs."""
        return self._folder / "secret.key"

    def enable_webhook(self, webhook_id: str) -> None:
        """What is queued for it goes out."""
        request = webhook_pb2.UpdateWebhookRequest(
            webhook=webhook_pb2.Webhook(app_id=APP, webhook_id=webhook_id, enabled=True)
        )
        webhook_pb2_grpc.WebhookServiceStub(self._channel).UpdateWebhook(request, timeout=_CALL_SECONDS)

    @property
    def settings_file(self) -> Path:
        """The settings that the node was started with."""
        return self._folder / "run" / "settings.json"

    def set_storage(self, settings: storage_pb2.StorageSettings) -> None:
        """Where files go from now on."""
        request = application_pb2.UpdateApplicationRequest(
            application=application_pb2.Application(app_id=APP, storage=settings),
            update_mask=field_mask_pb2.FieldMask(paths=["storage"]),
        )
        application_pb2_grpc.ApplicationServiceStub(self._channel).UpdateApplication(
            request, timeout=_CALL_SECONDS
        )

    def new_room(self, clock: room_pb2.RoomClock.ValueType = room_pb2.ROOM_CLOCK_ARRIVAL) -> str:
        """Opens a room; returns its id."""
        self._names += 1
        room_id = f"room-{self._names}"
        request = room_pb2.CreateRoomRequest(app_id=APP, room_id=room_id, clock=clock)
        self._rooms.CreateRoom(request, timeout=_CALL_SECONDS)
        return room_id

    def start(
        self, room_id: str, mode: task_pb2.RecordMode.ValueType, container: media_pb2.Container.ValueType
    ) -> str:
        """Starts a task that writes one container; returns its id."""
        mixed = mode == task_pb2.RECORD_MODE_MIXED
        output = task_pb2.OutputSettings(
            single_containers=() if mixed else [container],
            mixed_containers=[container] if mixed else (),
        )
        request = task_pb2.StartRecordRequest(app_id=APP, room_id=room_id, mode=mode, output=output)
        return self._tasks.StartRecord(request, timeout=_CALL_SECONDS).task.task_id

    def seconds_to_complete(self, task_id: str) -> float:
        """Stops a task; returns how long after the answer its watchers heard that all its files are in the store."""
        request = event_pb2.WatchEventsRequest(
            app_id=APP,
            origin=event_pb2.WATCH_ORIGIN_NOW,
            filter=event_pb2.EventFilter(
                task_ids=[task_id], types=[event_pb2.EVENT_TYPE_TASK_FILES_COMPLETE]
            ),
        )
        messages = event_pb2_grpc.WatchServiceStub(self._channel).WatchEvents(request, timeout=_FILES_SECONDS)
        # The first is a bookmark: whatever happens from here on comes.
        next(messages)
        self._tasks.StopRecord(task_pb2.StopRecordRequest(app_id=APP, task_id=task_id), timeout=_CALL_SECONDS)
        stopped = time.monotonic()
        while not next(messages).HasField("event"):
            pass
        seconds = time.monotonic() - stopped
        messages.cancel()
        return seconds

    def finish(self, task_ids: Sequence[str]) -> list[segment_pb2.Segment]:
        """Stops tasks and waits until all their files are in the store; returns the segments."""
        for task_id in task_ids:
            self._tasks.StopRecord(
                task_pb2.StopRecordRequest(app_id=APP, task_id=task_id), timeout=_CALL_SECONDS
            )
        segments: list[segment_pb2.Segment] = []
        for task_id in task_ids:
            request = task_pb2.DescribeRecordInfoRequest(app_id=APP, task_id=task_id)

            def completed(
                request: task_pb2.DescribeRecordInfoRequest = request,
            ) -> task_pb2.DescribeRecordInfoResponse | None:
                found = self._tasks.DescribeRecordInfo(request, timeout=_CALL_SECONDS)
                return found if found.task.state == task_pb2.TASK_STATE_COMPLETED else None

            segments += _await(completed, f"the files of task {task_id}").segments
        return segments

    def __enter__(self) -> Self:
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in self._settings.items()]
        command = [sys.executable, "-m", "roomtape_service.cli.main", "serve", "--json"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ROOMTAPE_")}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, f"--data-dir={self._folder}", *flags],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the service did not start, see {self._folder / 'server.log'}")
        self.target = str(json.loads(line)["listen"])
        self._channel = grpc.insecure_channel(self.target)
        self._rooms = room_pb2_grpc.RoomServiceStub(self._channel)
        self._tasks = task_pb2_grpc.RecordingServiceStub(self._channel)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._channel.close()
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for process in reversed(family(self._process.pid)):
                process.kill()
            self._process.wait()
        self._process.stdout.close()


def _await(
    found: Callable[[], task_pb2.DescribeRecordInfoResponse | None], what: str
) -> task_pb2.DescribeRecordInfoResponse:
    deadline = time.monotonic() + _FILES_SECONDS
    while (result := found()) is None:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come in {_FILES_SECONDS:g} s")
        time.sleep(_POLL_SECONDS)
    return result
