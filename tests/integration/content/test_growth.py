"""A file is in the store part by part before it is complete."""

import asyncio

import numpy as np
import pytest

from roomtape.client import Client
from roomtape.v1 import media_pb2
from roomtape_service.storage.part import PART_BYTES
from tests.support.audio import ffmpeg_decode, noise
from tests.support.hearing import path_of
from tests.support.server import ServerProcess
from tests.support.stage import Sound, Speaker, Stage
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="package")

# 192,000 bytes a second: two parts and a little.
STEREO = Sound(media_pb2.CODEC_PCM_S16LE, channels=2)
SECONDS = 96
PERIOD_SECONDS = 4.0


async def test_wav_goes_up_while_it_is_recorded(server: ServerProcess, client: Client) -> None:
    stage = Stage(client, "growth")
    await stage.record(singles=[media_pb2.CONTAINER_WAV])
    ada = Speaker("ada", 440, STEREO)
    await stage.join(ada)
    period = noise(PERIOD_SECONDS, STEREO.rate, channels=2)
    for _ in range(round(SECONDS / PERIOD_SECONDS)):
        await stage.play(PERIOD_SECONDS, {"ada": period})
    begun = server.data_dir / "files" / "app" / ".parts"

    def has_second_part() -> bool:
        return any(path.stat().st_size == 2 * PART_BYTES for path in begun.glob("*[!y]"))

    await eventually(has_second_part, "the second part is in the store")
    [file] = await stage.end()
    assert list(begun.iterdir()) == []
    heard = await asyncio.to_thread(ffmpeg_decode, path_of(file), 2)
    assert np.array_equal(heard, np.tile(period, (SECONDS // round(PERIOD_SECONDS), 1)))
