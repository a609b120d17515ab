"""A process that plays recorded media into a room as fast as it is taken.

`python -m tests.bench.player TARGET APPLICATION ROOM CODEC CLIP SECONDS`. It prints `{"opened": 1}` when its user is in
the room, and on a line of stdin sends so many seconds of the clip, over and over; when it is acknowledged it
prints `{"acknowledged": n}` with the number of frames, those excepted that encoders hold. It stays in the room until
the next line.
"""

import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import av
import numpy as np
import uvloop
from grpc import aio

from roomtape.v1 import ingest_pb2, media_pb2
from tests.bench.material import FRAME_SECONDS, Clip

__all__: list[str] = []

_METHOD = "/roomtape.v1.IngestService/Publish"
_TRACK = "audio"
_RATE = 48_000
_FRAME_NS = round(FRAME_SECONDS * 1_000_000_000)
_FRAME_BYTES = round(FRAME_SECONDS * _RATE) * 2
_BATCH_FRAMES = 25
# What encoders hold until more comes or the recording ends.
_HELD_FRAMES = 50
_LONGEST_SECONDS = 300.0


def _payloads(codec: media_pb2.Codec.ValueType, clip: Clip) -> Sequence[bytes]:
    """Frames of 20 ms."""
    if codec == media_pb2.CODEC_OPUS:
        return [payload for _, payload in clip.packets()]
    with av.open(str(clip.path)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=_RATE)
        parts = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    pcm = np.concatenate([part.to_ndarray()[0] for part in parts]).astype("<i2").tobytes()
    ends = range(_FRAME_BYTES, len(pcm) + 1, _FRAME_BYTES)
    return [pcm[end - _FRAME_BYTES : end] for end in ends]


def _batches(payloads: Sequence[bytes], count: int, start_ns: int) -> Iterator[bytes]:
    endless = itertools.cycle(payloads)
    for first in range(0, count, _BATCH_FRAMES):
        batch = ingest_pb2.FrameBatch(track_id=_TRACK)
        for number in range(first, min(first + _BATCH_FRAMES, count)):
            frame = batch.frames.add(sequence=number + 1, payload=next(endless))
            frame.media_time.FromNanoseconds(number * _FRAME_NS)
            frame.capture_time.FromNanoseconds(start_ns + number * _FRAME_NS)
        yield ingest_pb2.PublishRequest(frames=batch).SerializeToString()


def _say(**facts: int) -> None:
    print(json.dumps(facts), flush=True)


async def _run(target: str, app_id: str, room_id: str, codec_name: str, clip: str, seconds: str) -> None:
    codec = media_pb2.Codec.Value(codec_name)
    loop = asyncio.get_running_loop()
    start_ns = time.time_ns()
    offer = ingest_pb2.TrackOffer(track_id=_TRACK, codec=codec, sample_rate_hz=_RATE)
    opening = ingest_pb2.PublishOpen(
        app_id=app_id, room_id=room_id, user_id="player", publish_session_id="player", tracks=[offer]
    )
    opening.sent_time.FromNanoseconds(start_ns)
    async with aio.insecure_channel(target) as channel:
        method: aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(_METHOD)
        call = method()
        await call.write(ingest_pb2.PublishRequest(open=opening).SerializeToString())
        await _answer(call)
        _say(opened=1)
        await loop.run_in_executor(None, sys.stdin.readline)
        count = round(float(seconds) / FRAME_SECONDS)
        safe = count - _HELD_FRAMES
        async with asyncio.timeout(_LONGEST_SECONDS), asyncio.TaskGroup() as both:
            both.create_task(_acknowledged(call, safe))
            for batch in _batches(_payloads(codec, Clip(Path(clip))), count, start_ns):
                await call.write(batch)
        _say(acknowledged=safe)
        await loop.run_in_executor(None, sys.stdin.readline)
        call.cancel()


async def _acknowledged(call: aio.StreamStreamCall[bytes, bytes], last: int) -> None:
    while (await _answer(call)).acknowledgement.sequence < last:
        pass


async def _answer(call: aio.StreamStreamCall[bytes, bytes]) -> ingest_pb2.PublishResponse:
    answer = await call.read()
    if not isinstance(answer, bytes):
        raise RuntimeError(f"Publish ended: {await call.details()}")
    response = ingest_pb2.PublishResponse.FromString(answer)
    if response.HasField("frames_rejected"):
        raise RuntimeError(f"frames were refused: {response.frames_rejected.message}")
    return response


if __name__ == "__main__":
    uvloop.run(_run(*sys.argv[1:]))
