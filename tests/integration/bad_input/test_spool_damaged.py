"""A spool that was damaged while the service was down: what is whole is kept, what is lost is told."""

import asyncio
import os
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from roomtape.client import Client
from roomtape.v1 import error_pb2, event_pb2, media_pb2, room_pb2, segment_pb2, task_pb2
from tests.integration.bad_input.cases import tells
from tests.integration.bad_input.content import FRAME_SAMPLES, noise_frame, samples_of
from tests.integration.bad_input.witness import Voice, path_of, record
from tests.support.server import running_server
from tests.support.waiting import eventually

ROOM = "r"
WAV, MEDIA = media_pb2.CONTAINER_WAV, room_pb2.ROOM_CLOCK_MEDIA
USERS = ("whole", "cut", "gone", "torn", "flipped")
LOST = segment_pb2.SEGMENT_STATE_LOST
UPLOADED = segment_pb2.SEGMENT_STATE_UPLOADED


@tells("SPOOL_FILE_DAMAGED")
async def test_damage_costs_what_is_damaged_and_is_told_once(tmp_path: Path) -> None:
    async with running_server(tmp_path / "data") as server, Client(server.target) as client:
        task_id = await record(client, ROOM, MEDIA, [WAV])
        voices = {}
        try:
            for seed, user_id in enumerate(USERS):
                randomness = np.random.default_rng(seed)
                voices[user_id] = Voice(
                    client, ROOM, user_id, media_pb2.CODEC_PCM_S16LE, partial(noise_frame, randomness)
                )
            await asyncio.gather(*(voice.start() for voice in voices.values()))
            await eventually(
                lambda: all(voice.acknowledged > 60 for voice in voices.values()), "a second is safe"
            )
            media = await media_of(client, task_id)
            await server.kill()
            # What was acknowledged of each.
            safe = {user_id: voice.acknowledged for user_id, voice in voices.items()}
            damage(media, server.data_dir / "spool")
            # It dies once more while it looks at that.
            await server.start()
            await server.kill()
            await server.start()
            await asyncio.gather(*(voice.goes_on() for voice in voices.values()))
            await asyncio.gather(*(voice.stop() for voice in voices.values()))
        finally:
            await asyncio.gather(*(voice.aclose() for voice in voices.values()))
        await client.recording.StopRecord(task_pb2.StopRecordRequest(app_id="app", task_id=task_id))
        async with asyncio.timeout(40):
            described = await client.wait_until_complete("app", task_id)
        assert described.task.state == task_pb2.TASK_STATE_COMPLETED
        by_user = {
            user_id: sorted(
                (each for each in described.segments if each.user_id == user_id),
                key=lambda each: each.segment_id,
            )
            for user_id in USERS
        }
        states = {user_id: parts[0].state for user_id, parts in by_user.items()}
        assert states == {
            "whole": UPLOADED,
            "cut": UPLOADED,
            "gone": LOST,
            "torn": LOST,
            "flipped": UPLOADED,
        }
        for user_id, parts in by_user.items():
            assert all(each.state == UPLOADED for each in parts[1:])
            check_samples(user_id, parts, b"".join(voices[user_id].frames), safe[user_id])
        await check_events(client, task_id, by_user)
        kept = {path.name.partition("-")[2] for path in (server.data_dir / "spool" / "aside").iterdir()}
        assert any(name.endswith("foreign.txt") for name in kept)
        left = [path for path in (server.data_dir / "spool").glob("*/*") if path.parent.name != "aside"]
        assert [path.name for path in left if path.name != "lock"] == []


async def media_of(client: Client, task_id: str) -> dict[str, str]:
    """The recordings of the users."""
    described = await client.recording.DescribeRecordInfo(
        task_pb2.DescribeRecordInfoRequest(app_id="app", task_id=task_id)
    )
    return {each.user_id: each.recording_id for each in described.recordings}


def damage(media: dict[str, str], spool: Path) -> None:
    """Damages the first segments of some users, each in its own way."""
    [folder] = [path for path in spool.iterdir() if path.is_dir() and not path.name.startswith(".")]
    wav = {user_id: folder / f"{recording_id}-000000.wav" for user_id, recording_id in media.items()}
    os.truncate(wav["cut"], 44 + 25 * 2 * FRAME_SAMPLES + 7)
    wav["gone"].unlink()
    wav["torn"].with_suffix(".journal").write_bytes(b"")
    content = bytearray(wav["flipped"].read_bytes())
    content[44 + 30 * 2 * FRAME_SAMPLES] ^= 0x40
    wav["flipped"].write_bytes(bytes(content))
    (folder / "foreign.txt").write_text("hello")
    (spool / "a folder").mkdir()


def check_samples(user_id: str, parts: list[segment_pb2.Segment], published: bytes, safe: int) -> None:
    log = np.frombuffer(published, "<i2")
    samples = [samples_of(path_of(each)) for each in parts if each.state == UPLOADED]
    if user_id == "whole":
        np.testing.assert_array_equal(np.concatenate(samples), log)
        return
    if user_id in ("cut", "flipped"):
        first = samples.pop(0)
        np.testing.assert_array_equal(first, log[: len(first)])
        limit = {"cut": 25, "flipped": 30}[user_id] * FRAME_SAMPLES
        # The newest checkpoint before the damage: they are three times a second.
        assert limit - 24_000 < len(first) <= limit
        assert parts[0].interrupted
        assert parts[0].sample_count == len(first)
    # What was not acknowledged was sent again.
    rest = log[safe * FRAME_SAMPLES :]
    joined = np.concatenate(samples)
    np.testing.assert_array_equal(joined[-len(rest) :], rest)


async def check_events(client: Client, task_id: str, by_user: dict[str, list[segment_pb2.Segment]]) -> None:
    request = event_pb2.EventFilter(task_ids=[task_id])
    watch = client.watch_events("app", origin=event_pb2.WATCH_ORIGIN_OLDEST, filter=request)
    async with asyncio.timeout(20):
        found = [event async for event in watch]
    lost = Counter(
        each.segment.segment.user_id for each in found if each.type == event_pb2.EVENT_TYPE_SEGMENT_LOST
    )
    assert lost == {"gone": 1, "torn": 1}
    for each in found:
        if each.type == event_pb2.EVENT_TYPE_SEGMENT_LOST:
            assert each.segment.error_code
            assert each.segment.message
    warned = Counter(
        each.warning.user_id
        for each in found
        if each.type == event_pb2.EVENT_TYPE_WARNING
        and each.warning.reason == error_pb2.ERROR_REASON_SPOOL_FILE_DAMAGED
    )
    assert warned == {"cut": 1, "gone": 1, "torn": 1, "flipped": 1}
    gaps = [each.gap for each in found if each.type == event_pb2.EVENT_TYPE_GAP]
    of_damage = {each.user_id: each for each in gaps if each.reason == event_pb2.GAP_REASON_SEGMENT_LOST}
    for user_id in ("cut", "flipped"):
        first, second = by_user[user_id][:2]
        assert of_damage[user_id].start_time == first.end_time
        assert of_damage[user_id].end_time.ToNanoseconds() > first.end_time.ToNanoseconds()
        assert second.start_time == first.end_time
    assert "whole" not in {each.user_id for each in gaps}
    interruptions = [each for each in found if each.type == event_pb2.EVENT_TYPE_INTERRUPTED]
    assert len({each.interrupted.recording_id for each in interruptions}) == len(interruptions)
