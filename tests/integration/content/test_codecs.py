"""AAC and G.711 in, AAC and M4A out: who was heard when, and how loud."""

import asyncio

import pytest

from roomtape.client import Client
from roomtape.v1 import media_pb2
from tests.support.audio import ffmpeg_decode, find_tone
from tests.support.hearing import assert_heard, check_files, path_of, spoken_by
from tests.support.stage import Sound, Speaker, Stage

pytestmark = pytest.mark.asyncio(loop_scope="package")

AAC, M4A = media_pb2.CONTAINER_AAC, media_pb2.CONTAINER_M4A
MP3, WAV = media_pb2.CONTAINER_MP3, media_pb2.CONTAINER_WAV
SINGLES = [MP3, WAV, AAC, M4A]


async def test_aac_goes_into_m4a(client: Client) -> None:
    stage = Stage(client, "aac")
    await stage.record(singles=[M4A])
    ada = Speaker("ada", 440, Sound(media_pb2.CODEC_AAC))
    await stage.join(ada)
    await stage.talk(1.024, ada)
    files = await stage.end()
    check_files(files)
    [file] = files
    assert (file.codec, file.sample_rate_hz, file.channels) == (media_pb2.CODEC_AAC, 48_000, 1)
    assert (file.sample_count, file.encoder_delay_samples) == (48 * 1024, 0)
    heard = await asyncio.to_thread(ffmpeg_decode, path_of(file))
    [span] = find_tone(heard, 440, 48_000)
    assert (span.start, span.end) == pytest.approx((0, 1.024), abs=0.03)
    assert span.dbfs == pytest.approx(-20, abs=0.5)
    assert_heard(files, spoken_by([ada]))
