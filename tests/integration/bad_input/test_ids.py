"""Ids that are legal and look dangerous: each has a key of its own inside of its application's folder."""

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from roomtape.v1 import file_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from tests.integration.bad_input.content import fetch, noise_frame, samples_of
from tests.integration.bad_input.publishing import RawPublish, batch, frames, opening
from tests.integration.bad_input.recorded import files_of
from tests.integration.bad_input.witness import START_NS, offer_of, path_of, record
from tests.integration.bad_input.world import World

pytestmark = pytest.mark.asyncio(loop_scope="package")

FRAMES = 5
SAFE_KEY = re.compile(r"app_[A-Za-z0-9._~-]+/[0-9-]+_0_audio(-\d+)?\.wav")

# Room and user; neighbours look alike once their parts are put together, folded or shortened.
PEOPLE = (
    ("a", "b"),
    ("a/b", "a/b"),
    ("a", "b/c"),
    ("a/b", "c"),
    ("a_b", "c"),
    ("a", "b_c"),
    ("a_b_c", "a_b_c"),
    ("..", ".."),
    (".", "."),
    ("../..", "../../../etc/passwd"),
    ("/", "/"),
    ("\\", "C:\\a"),
    ("😀", "😀"),
    ("~F0~9F~98~80", "~F0~9F~98~80"),
    ("~", "~~"),
    ("%2F", "%2e%2e"),
    ("é", "é"),
    ("e\u0301", "e\u0301"),
    ("A", "B"),
    (" ", " a "),
    ("con", "nul"),
    ('*?<>|":', "$(id)`id`;"),
    ("\u202e\u2028\ufeff", "\u200b"),
    ("r" * 128, "u" * 128),
    ("r" * 128, "u" * 127 + "v"),
    ("😀" * 32, "😀" * 32),
    ("😀" * 32, "😀" * 31 + "😁"),
)


@dataclass
class Person:
    """Who spoke, and what."""

    room_id: str
    user_id: str
    task_id: str
    samples: "np.ndarray[tuple[int], np.dtype[np.int16]]"


async def test_ids_become_safe_keys_that_do_not_meet(world: World) -> None:
    client = world.client
    rooms = list(dict.fromkeys(room_id for room_id, _ in PEOPLE))
    task_ids = dict(
        zip(
            rooms,
            await asyncio.gather(
                *(
                    record(client, room_id, room_pb2.ROOM_CLOCK_MEDIA, [media_pb2.CONTAINER_WAV])
                    for room_id in rooms
                )
            ),
            strict=True,
        )
    )

    async def speak(number: int, room_id: str, user_id: str) -> Person:
        randomness = np.random.default_rng(number)
        spoken = [noise_frame(randomness) for _ in range(FRAMES)]
        async with RawPublish(world.channel) as stream:
            offer = offer_of(media_pb2.CODEC_PCM_S16LE)
            await stream.open(opening(room_id, user_id, [offer], session=f"session-{number}"))
            await stream.send(batch(frames(spoken), sent_ns=START_NS))
            await stream.close()
        return Person(room_id, user_id, task_ids[room_id], np.frombuffer(b"".join(spoken), "<i2"))

    people = await asyncio.gather(*(speak(number, *ids) for number, ids in enumerate(PEOPLE)))
    for room_id, task_id in task_ids.items():
        await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id="app", task_id=task_id))
        await client.wait_until_complete("app", task_id)
        await client.rooms.CloseRoom(room_pb2.CloseRoomRequest(app_id="app", room_id=room_id))
    folder = (world.server.data_dir / "files" / "app").resolve()
    keys: dict[str, Person] = {}
    for person in people:
        [file] = await files_of(client, person.task_id, person.user_id)
        assert (file.room_id, file.user_id) == (person.room_id, person.user_id)
        assert SAFE_KEY.fullmatch(file.object_key), file
        assert all(part not in ("", ".", "..") and len(part) <= 255 for part in file.object_key.split("/"))
        assert file.object_key not in keys, (
            f"{person.room_id!r} {person.user_id!r} and {keys[file.object_key]}"
        )
        keys[file.object_key] = person
        path = path_of(file)
        assert path == folder / file.object_key
        assert path.resolve() == path
        np.testing.assert_array_equal(samples_of(path), person.samples, repr(person))
        await check_library(world, person, file)
    # The task of a neighbour has a manifest, too.
    assert {each.name for each in folder.parent.iterdir()} <= {"app", "gme"}
    found = {str(each.relative_to(folder)) for each in folder.rglob("*.wav")}
    assert keys.keys() <= found


async def check_library(world: World, person: Person, file: segment_pb2.Segment) -> None:
    """The file is found by its room and its user, and plays by its URL."""
    client = world.client
    listed = await client.files.ListFiles(
        file_pb2.ListFilesRequest(app_id="app", room_id=person.room_id, user_id=person.user_id)
    )
    assert [each.file_id for each in listed.files] == [file.file_id]
    playback = await client.files.CreatePlaybackUrl(
        file_pb2.CreatePlaybackUrlRequest(app_id="app", file_id=file.file_id)
    )
    played = await asyncio.to_thread(fetch, playback.url)
    assert played == Path(path_of(file)).read_bytes()
