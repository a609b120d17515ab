"""One publisher in a process of its own that keeps its own log: what it published, and what was acknowledged.

`python -m tests.support.lone_publisher TARGET APP ROOM USER FOLDER SEED`: noise in real time until SIGTERM, then it
closes and waits until all is safe. FOLDER gets `frames.pcm`, every sample that was published, in order; `acknowledged`,
the newest acknowledged sequence as text, replaced as a whole; and `statistics.json` at the end.
"""

import asyncio
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from roomtape.client import Client, PublisherSettings
from roomtape.v1 import ingest_pb2, media_pb2

RATE_HZ = 48000
FRAME_SAMPLES = 960
TRACK = "mic"


async def main(target: str, app_id: str, room_id: str, user_id: str, folder: Path, seed: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    randomness = np.random.default_rng(seed)
    offer = ingest_pb2.TrackOffer(
        track_id=TRACK, codec=media_pb2.CODEC_PCM_S16LE, sample_rate_hz=RATE_HZ, channels=1
    )

    def acknowledged(_track_id: str, sequence: int) -> None:
        partial = folder / "acknowledged.part"
        partial.write_text(str(sequence))
        os.replace(partial, folder / "acknowledged")

    settings = PublisherSettings(outage_seconds=None)
    async with Client(target) as client:
        publisher = client.publisher(
            app_id, room_id, user_id, [offer], settings=settings, on_acknowledged=acknowledged
        )
        with (folder / "frames.pcm").open("wb", buffering=0) as log:
            async with publisher:
                start = time.monotonic()
                frame = 0
                while not stop.is_set():
                    samples = randomness.integers(-12000, 12000, FRAME_SAMPLES).astype("<i2").tobytes()
                    log.write(samples)
                    await publisher.publish(TRACK, samples)
                    frame += 1
                    pause = start + frame * FRAME_SAMPLES / RATE_HZ - time.monotonic()
                    if pause > 0:
                        await asyncio.sleep(pause)
        (folder / "statistics.json").write_text(json.dumps(asdict(publisher.statistics())))


if __name__ == "__main__":
    _target, _app, _room, _user, _folder, _seed = sys.argv[1:]
    asyncio.run(main(_target, _app, _room, _user, Path(_folder), int(_seed)))
