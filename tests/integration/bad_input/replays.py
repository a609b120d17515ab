"""Requests with a `request_id`: what they ask for, and what another payload under the same id would be."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message

from roomtape.v1 import (
    application_pb2,
    file_pb2,
    media_pb2,
    room_pb2,
    segment_pb2,
    storage_pb2,
    task_pb2,
    webhook_pb2,
)
from tests.integration.bad_input.recorded import until_files
from tests.integration.bad_input.world import World
from tests.support.audio import silence
from tests.support.stage import PCM, Speaker, Stage

__all__ = ["REPLAYS", "USER", "Replay", "assign"]

USER = "guest"
_SPEAKER = "speaker"
_URL = "https://hooks.example.com/"

_NO_STORE = storage_pb2.StorageSettings(
    object_store=storage_pb2.ObjectStore(
        vendor=storage_pb2.STORAGE_VENDOR_S3,
        bucket="nowhere",
        region="us-east-1",
        endpoint="http://127.0.0.1:9",
        path_style=True,
        credentials=storage_pb2.StorageCredentials(
            access_key_id="id", secret_access_key=storage_pb2.Secret(value="secret")
        ),
    )
)


async def _task(_world: World, _room_id: str, task_id: str) -> str:
    return task_id


@dataclass(frozen=True, slots=True)
class Replay:
    """`request` is given a room of its own with `USER` in it, which is recorded by a task, and what `prepare` made.

    There is an application of the room's name.
    """

    request: Callable[[str, str], Message]
    other: Callable[[Message], None]
    """Makes it another request."""
    move_on: Callable[[World, str, str], Awaitable[object]]
    """Changes the state so that the request could not be carried out any more."""
    prepare: "Callable[[World, str, str], Awaitable[str]]" = field(default=_task)
    """Makes what the request is about; the task by default."""


async def _nothing(_world: World, _room_id: str, _task_id: str) -> None:
    return


async def _close(world: World, room_id: str, _task_id: str) -> None:
    await world.client.rooms.CloseRoom(room_pb2.CloseRoomRequest(app_id="app", room_id=room_id))


async def _reopen(world: World, room_id: str, task_id: str) -> None:
    await _close(world, room_id, task_id)
    clock = room_pb2.ROOM_CLOCK_ARRIVAL
    await world.client.rooms.CreateRoom(
        room_pb2.CreateRoomRequest(app_id="app", room_id=room_id, clock=clock)
    )


async def _rename(world: World, room_id: str, _task_id: str) -> None:
    application = application_pb2.Application(app_id=room_id, display_name="third")
    await world.client.applications.UpdateApplication(
        application_pb2.UpdateApplicationRequest(application=application)
    )


async def _stored_file(world: World, app_id: str, _task_id: str) -> str:
    return (await _recorded(world, app_id))[0].file_id


async def _recording(world: World, app_id: str, _task_id: str) -> str:
    return (await _recorded(world, app_id))[0].recording_id


async def _delete_segments(world: World, app_id: str, _task_id: str) -> None:
    listed = await world.client.files.ListFiles(file_pb2.ListFilesRequest(app_id=app_id))
    for file in listed.files:
        await world.client.files.DeleteFile(file_pb2.DeleteFileRequest(app_id=app_id, file_id=file.file_id))


async def _waiting_file(world: World, app_id: str, _task_id: str) -> str:
    application = application_pb2.Application(app_id=app_id, storage=_NO_STORE)
    await world.client.applications.UpdateApplication(
        application_pb2.UpdateApplicationRequest(application=application)
    )
    stage = await _play(world, app_id)
    await world.client.recording.StopRecord(task_pb2.StopRecordRequest(app_id=app_id, task_id=stage.task_id))
    uploading = segment_pb2.SEGMENT_STATE_UPLOADING
    files = await until_files(world.client, stage.task_id, _SPEAKER, uploading, count=3, app_id=app_id)
    return files[0].file_id


async def _webhook(world: World, app_id: str, _task_id: str) -> str:
    """A webhook of the application."""
    request = webhook_pb2.CreateWebhookRequest(webhook=webhook_pb2.Webhook(app_id=app_id, url=_URL))
    return (await world.client.webhooks.CreateWebhook(request)).webhook.webhook_id


async def _delete_webhooks(world: World, app_id: str, _task_id: str) -> None:
    listed = await world.client.webhooks.ListWebhooks(webhook_pb2.ListWebhooksRequest(app_id=app_id))
    for webhook in listed.webhooks:
        await world.client.webhooks.DeleteWebhook(
            webhook_pb2.DeleteWebhookRequest(app_id=app_id, webhook_id=webhook.webhook_id)
        )


async def _recorded(world: World, app_id: str) -> Sequence[segment_pb2.Segment]:
    """Three segments in the store of the application."""
    return await (await _play(world, app_id)).end()


async def _play(world: World, app_id: str) -> Stage:
    stage = Stage(world.client, "library", app_id=app_id)
    await stage.record(singles=[media_pb2.CONTAINER_WAV], segment_seconds=1)
    await stage.join(Speaker(_SPEAKER, 0, PCM))
    await stage.play(2.4, {_SPEAKER: silence(2.4)})
    return stage


def assign(request: Message, path: str, value: object) -> None:
    """Sets the field at a dotted path."""
    *holders, name = path.split(".")
    target: object = request
    for holder in holders:
        target = getattr(target, holder)
    setattr(target, name, value)


def _set(path: str, value: object) -> Callable[[Message], None]:
    return lambda request: assign(request, path, value)


def _application(room_id: str) -> application_pb2.Application:
    return application_pb2.Application(app_id=room_id, display_name="second")


REPLAYS: Mapping[str, Replay] = {
    "ApplicationService.CreateApplication": Replay(
        lambda room_id, _: application_pb2.CreateApplicationRequest(
            application=application_pb2.Application(app_id=f"{room_id}-new")
        ),
        _set("application.display_name", "other"),
        _nothing,
    ),
    "ApplicationService.UpdateApplication": Replay(
        lambda room_id, _: application_pb2.UpdateApplicationRequest(application=_application(room_id)),
        _set("application.display_name", "other"),
        _rename,
    ),
    "RoomService.CreateRoom": Replay(
        lambda room_id, _: room_pb2.CreateRoomRequest(
            app_id="app", room_id=room_id, clock=room_pb2.ROOM_CLOCK_MEDIA
        ),
        _set("room_id", "another"),
        _reopen,
    ),
    "RoomService.CloseRoom": Replay(
        lambda room_id, _: room_pb2.CloseRoomRequest(app_id="app", room_id=room_id),
        _set("room_id", "another"),
        _nothing,
    ),
    "RoomService.SetTrackMuted": Replay(
        lambda room_id, _: room_pb2.SetTrackMutedRequest(
            app_id="app", room_id=room_id, user_id=USER, muted=True
        ),
        _set("muted", False),
        _close,
    ),
    "RoomService.RemoveParticipant": Replay(
        lambda room_id, _: room_pb2.RemoveParticipantRequest(app_id="app", room_id=room_id, user_id=USER),
        _set("user_id", "another"),
        _close,
    ),
    "RecordingService.StartRecord": Replay(
        lambda room_id, _: task_pb2.StartRecordRequest(
            app_id="app", room_id=f"{room_id}-free", mode=task_pb2.RECORD_MODE_SINGLE
        ),
        _set("mode", task_pb2.RECORD_MODE_MIXED),
        _close,
    ),
    "RecordingService.StopRecord": Replay(
        lambda _, task_id: task_pb2.StopRecordRequest(app_id="app", task_id=task_id),
        _set("task_id", "1"),
        _close,
    ),
    "RecordingService.ModifyRecordInfo": Replay(
        lambda _, task_id: task_pb2.ModifyRecordInfoRequest(
            app_id="app", task_id=task_id, mode=task_pb2.RECORD_MODE_SINGLE_AND_MIXED
        ),
        _set("mode", task_pb2.RECORD_MODE_MIXED),
        _close,
    ),
    "FileService.DeleteFile": Replay(
        lambda app_id, file_id: file_pb2.DeleteFileRequest(app_id=app_id, file_id=file_id),
        _set("file_id", "another"),
        _nothing,
        _stored_file,
    ),
    "FileService.AbandonFile": Replay(
        lambda app_id, file_id: file_pb2.AbandonFileRequest(app_id=app_id, file_id=file_id),
        _set("file_id", "another"),
        _nothing,
        _waiting_file,
    ),
    "FileService.JoinSegments": Replay(
        lambda app_id, recording_id: file_pb2.JoinSegmentsRequest(app_id=app_id, recording_id=recording_id),
        _set("first_segment_id", 1),
        _delete_segments,
        _recording,
    ),
    "WebhookService.CreateWebhook": Replay(
        lambda app_id, _: webhook_pb2.CreateWebhookRequest(
            webhook=webhook_pb2.Webhook(app_id=app_id, url=_URL)
        ),
        _set("webhook.url", _URL + "other"),
        _delete_webhooks,
    ),
    "WebhookService.UpdateWebhook": Replay(
        lambda app_id, webhook_id: webhook_pb2.UpdateWebhookRequest(
            webhook=webhook_pb2.Webhook(app_id=app_id, webhook_id=webhook_id, display_name="second")
        ),
        _set("webhook.display_name", "other"),
        _delete_webhooks,
        _webhook,
    ),
    "WebhookService.DeleteWebhook": Replay(
        lambda app_id, webhook_id: webhook_pb2.DeleteWebhookRequest(app_id=app_id, webhook_id=webhook_id),
        _set("webhook_id", "another"),
        _nothing,
        _webhook,
    ),
    "WebhookService.RotateWebhookKey": Replay(
        lambda app_id, webhook_id: webhook_pb2.RotateWebhookKeyRequest(app_id=app_id, webhook_id=webhook_id),
        _set("webhook_id", "another"),
        _delete_webhooks,
        _webhook,
    ),
    "WebhookService.ResendWebhookDeliveries": Replay(
        lambda app_id, webhook_id: webhook_pb2.ResendWebhookDeliveriesRequest(
            app_id=app_id, webhook_id=webhook_id
        ),
        _set("webhook_id", "another"),
        _delete_webhooks,
        _webhook,
    ),
}
