"""A room is rebuilt from nothing but its manifest and the users' own files, as `docs/manifest.md` says, and compared
with the recorded mix."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio

from roomtape.client import Client
from roomtape.v1 import media_pb2, task_pb2
from tests.support.manifests import manifest_path
from tests.support.server import running_server
from tests.support.stage import OPUS, PCM, Sound, Speaker, Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")

MP3, OGG, WAV = media_pb2.CONTAINER_MP3, media_pb2.CONTAINER_OGG, media_pb2.CONTAINER_WAV
RATE = 48_000
NS = 1_000_000_000

Signal = npt.NDArray[np.float64]
Json = Any
"""What anybody gets who reads the document without our code."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def manifest(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """Three speakers of three formats come and go, and are mute for a while, in segments of a second."""
    async with (
        running_server(tmp_path_factory.mktemp("rebuild") / "data") as server,
        Client(server.target) as client,
    ):
        stage = Stage(client, "room")
        ada, ben = Speaker("ada", 440, OPUS, -18), Speaker("ben", 1000, PCM, -20)
        cleo = Speaker("cleo", 700, Sound(media_pb2.CODEC_PCM_S16LE, rate=44_100, channels=2), -22)
        await stage.record(
            task_pb2.RECORD_MODE_SINGLE_AND_MIXED,
            singles=[MP3, OGG, WAV],
            mixes=[WAV],
            segment_seconds=1.0,
        )
        await stage.join(ada, ben)
        await stage.talk(1.3, ada, ben)
        await stage.leave(ada)
        await stage.join(cleo)
        await stage.talk(0.7, ben, cleo)
        await stage.mute(ben, True)
        await stage.talk(0.6, cleo)
        await stage.mute(ben, False)
        await stage.join(ada)
        await stage.talk(1.1, ada, ben, cleo)
        await stage.end()
        yield await manifest_path(client, "app", stage.task_id)


@pytest.mark.parametrize(
    ("containers", "error"),
    [
        # What differs is how 44.1 kHz becomes 48 kHz; a place wrong by one sample would be an error of six percent.
        (["WAV"], 0.01),
        # Opus packets are decoded anew, and lie where the segment's frames do to 2.5 ms.
        (["MP3"], 0.1),
        (["OGG", "WAV"], 0.1),
    ],
    ids=["wav", "mp3", "ogg"],
)
async def test_the_users_make_the_mix(manifest: Path, containers: list[str], error: float) -> None:
    document = json.loads(manifest.read_bytes())
    root = manifest.parents[len(Path(document["object_key"]).parts) - 1]
    singles = [each for each in document["recordings"] if each["kind"] == "SINGLE"]
    (mix,) = [each for each in document["recordings"] if each["kind"] == "MIXED"]
    assert {each["user_id"] for each in singles} == {"ada", "ben", "cleo"}
    assert sum(len(each["segments"]) for each in singles) >= 8
    begin = min(start_of(file, document) for file in files_of(mix, ["WAV"]))
    recorded = placed(files_of(mix, ["WAV"]), document, root, begin)
    rebuilt = np.zeros_like(recorded)
    for single in singles:
        signal = placed(files_of(single, containers), document, root, begin)
        length = min(len(signal), len(rebuilt))
        rebuilt[:length] += signal[:length]
    assert best_lag(recorded, rebuilt) == 0
    difference = np.sqrt(np.mean((recorded - rebuilt) ** 2)) / np.sqrt(np.mean(recorded**2))
    assert difference < error


async def test_the_delay_of_an_encoder_is_in_the_manifest(manifest: Path) -> None:
    """A decoder that knows no tag gives more samples at both ends: the manifest says which are the recording."""
    document = json.loads(manifest.read_bytes())
    root = manifest.parents[len(Path(document["object_key"]).parts) - 1]
    files = [file for each in document["recordings"] for file in files_of(each, ["MP3"])]
    assert len(files) >= 6
    for file in files:
        path = root / file["object_key"]
        delay, count = file["encoder_delay_samples"], file["sample_count"]
        plain = decoded(path, knows_tag=False)
        assert delay > 0
        assert len(plain) >= delay + count
        np.testing.assert_array_equal(plain[delay : delay + count], decoded(path, knows_tag=True))


def files_of(recording: Json, containers: list[str]) -> Iterator[Json]:
    """Of each segment the file in the first of the containers that it has."""
    for segment in recording["segments"]:
        by_container = {file["container"]: file for file in segment["files"]}
        yield from [by_container[each] for each in containers if each in by_container][:1]


def nanoseconds(time: str) -> int:
    """A time of the manifest since 1970."""
    whole, _, fraction = time.removesuffix("Z").partition(".")
    return round(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * NS + int(fraction)


def start_of(file: Json, document: Json) -> int:
    """The file's first sample, counted from the room's epoch at 48 kHz."""
    since_ns = nanoseconds(file["start_time"]) - nanoseconds(document["room"]["epoch_time"])
    return round(since_ns * RATE / NS)


def placed(files: Iterator[Json], document: Json, root: Path, begin: int) -> Signal:
    """Files as one signal at 48 kHz, mono, that begins at sample `begin` of the room; silence where there is none."""
    pieces = [
        (
            start_of(file, document) - begin,
            resampled(decoded(root / file["object_key"]), file["sample_rate_hz"]),
        )
        for file in files
    ]
    signal = np.zeros(max(at + len(piece) for at, piece in pieces))
    for at, piece in pieces:
        signal[at : at + len(piece)] += piece
    return signal


def decoded(path: Path, *, knows_tag: bool = True) -> Signal:
    """The file's samples, mono, full scale is 1."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        if not knows_tag:
            stream.codec_context.flags2 |= av.codec.context.Flags2.skip_manual
        frames = [frame.to_ndarray() for frame in container.decode(stream)]
        channels, is_planar = stream.codec_context.channels, stream.codec_context.format.is_planar
    joined = np.concatenate(frames, axis=1)
    if not is_planar:
        joined = joined.reshape(-1, channels).T
    scale = 32768.0 if joined.dtype == np.int16 else 1.0
    return np.asarray(joined.mean(axis=0) / scale, np.float64)


def resampled(signal: Signal, rate: int) -> Signal:
    """The signal at 48 kHz, by its spectrum."""
    if rate == RATE:
        return signal
    length = round(len(signal) * RATE / rate)
    spectrum = np.fft.rfft(signal)
    wanted = np.zeros(length // 2 + 1, np.complex128)
    wanted[: min(len(spectrum), len(wanted))] = spectrum[: len(wanted)]
    return np.asarray(np.fft.irfft(wanted, length) * (length / len(signal)), np.float64)


def best_lag(one: Signal, other: Signal) -> int:
    """By how many samples `other` has to move to be most like `one`."""
    size = 1 << (len(one) + len(other) - 1).bit_length()
    product = np.fft.rfft(one, size) * np.conj(np.fft.rfft(other, size))
    peak = int(np.argmax(np.fft.irfft(product, size)))
    return peak if peak < size // 2 else peak - size
