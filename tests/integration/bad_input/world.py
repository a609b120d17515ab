"""A server in use, and what the requests of the cases name."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from google.protobuf.message import Message
from grpc import aio

from roomtape.client import Client
from roomtape.v1 import application_pb2, event_pb2, room_pb2, task_pb2, webhook_pb2
from tests.integration.bad_input.calling import call, refused
from tests.integration.bad_input.refusals import Refused
from tests.integration.bad_input.witness import Witness
from tests.support.server import ServerProcess

__all__ = ["World", "prepare"]


@dataclass(frozen=True, slots=True)
class World:
    """The application `app` with a witness, and neighbours: `gme` with that profile, and `off`, switched off."""

    server: ServerProcess
    client: Client
    channel: aio.Channel
    witness: Witness
    ended_task_id: str
    """Of a task of `app` that was stopped."""
    foreign_task_id: str
    """Of a task of `gme` that waits."""
    file_id: str
    """Of a file of `app` that is still written."""
    recording_id: str
    """Of its recording."""
    webhook_id: str
    """Of a webhook of `app` that is disabled, and for which nothing is queued."""

    @property
    def room_id(self) -> str:
        """The witness's room, on a MEDIA clock."""
        return self.witness.room_id

    async def call(self, rpc: str, request: Message) -> Message:
        """The answer to a request, or the first of a stream. Raises AioRpcError."""
        return await call(self.channel, rpc, request)

    async def refused(self, rpc: str, request: Message) -> Refused:
        """The refusal of a request. Raises AssertionError when it is answered."""
        return await refused(self.channel, rpc, request)

    async def place(self, app_id: str = "app") -> str:
        """Where the application's log stands."""
        listed = await self.call("RecordingService.ListTasks", task_pb2.ListTasksRequest(app_id=app_id))
        assert isinstance(listed, task_pb2.ListTasksResponse)
        return listed.resume_token

    @asynccontextmanager
    async def unchanged(self) -> AsyncIterator[None]:
        """Raises AssertionError if an event was appended to any application while the block ran."""
        app_ids = ("app", "gme", "off")
        before = await asyncio.gather(*map(self.place, app_ids))
        yield
        assert await asyncio.gather(*map(self.place, app_ids)) == before


async def prepare(server: ServerProcess, client: Client, channel: aio.Channel, witness: Witness) -> World:
    """Makes what is not there yet."""
    for app_id, profile, state in (
        ("gme", application_pb2.PROFILE_GME, application_pb2.SERVICE_STATE_ENABLED),
        ("off", application_pb2.PROFILE_ROOMTAPE, application_pb2.SERVICE_STATE_DISABLED),
    ):
        application = application_pb2.Application(app_id=app_id, profile=profile, service_state=state)
        known = {
            each.app_id
            for each in (
                await client.applications.ListApplications(application_pb2.ListApplicationsRequest())
            ).applications
        }
        if app_id not in known:
            await client.applications.CreateApplication(
                application_pb2.CreateApplicationRequest(application=application)
            )
    for app_id, room_id in (("app", "empty"), ("gme", witness.room_id), ("off", "empty")):
        await client.rooms.CreateRoom(room_pb2.CreateRoomRequest(app_id=app_id, room_id=room_id))
    ended = await _start(client, "app", "empty")
    await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id="app", task_id=ended))
    # Its last events come by themselves.
    await client.wait_until_complete("app", ended)
    foreign = await _start(client, "gme", witness.room_id)
    described = await client.recording.DescribeRecordInfo(
        task_pb2.DescribeRecordInfoRequest(app_id="app", task_id=witness.task_id)
    )
    growing = described.segments[0]
    return World(
        server,
        client,
        channel,
        witness,
        ended,
        foreign,
        growing.file_id,
        growing.recording_id,
        await _webhook(client, "app"),
    )


async def _webhook(client: Client, app_id: str) -> str:
    listed = await client.webhooks.ListWebhooks(webhook_pb2.ListWebhooksRequest(app_id=app_id))
    if listed.webhooks:
        return listed.webhooks[0].webhook_id
    webhook = webhook_pb2.Webhook(
        app_id=app_id,
        url="https://hooks.example.com/",
        filter=event_pb2.EventFilter(room_ids=["of-nobody"]),
        enabled=False,
    )
    created = await client.webhooks.CreateWebhook(webhook_pb2.CreateWebhookRequest(webhook=webhook))
    return created.webhook.webhook_id


async def _start(client: Client, app_id: str, room_id: str) -> str:
    request = task_pb2.StartRecordRequest(app_id=app_id, room_id=room_id, mode=task_pb2.RECORD_MODE_SINGLE)
    return (await client.recording.StartRecord(request)).task.task_id
