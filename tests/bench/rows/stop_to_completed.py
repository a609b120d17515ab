"""From the answer to StopRecord until all files of a recording of an hour are in their store, and its task says so.

Everything that could go up while it was recorded has gone up before: whoever records for an hour has had the time.
"""

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import av

from roomtape.v1 import media_pb2, room_pb2, segment_pb2, storage_pb2, task_pb2
from roomtape_service.storage.part import PART_BYTES, settled_parts
from tests.bench.bench import Bench
from tests.bench.child import Child
from tests.bench.figures import Figure
from tests.bench.service import APP, Service
from tests.support.stores import BUCKET, disk_settings, weed_settings
from tests.support.weed import weed_server

__all__ = ["measure"]

_NAME = "stop_to_completed"
_GOAL = 2.0
_SECONDS = 3600
# What an encoder adds at both ends.
_TOLERANCE_SECONDS = 0.2
_CODECS = {
    media_pb2.CONTAINER_MP3: media_pb2.CODEC_OPUS,
    media_pb2.CONTAINER_OGG: media_pb2.CODEC_OPUS,
    media_pb2.CONTAINER_WAV: media_pb2.CODEC_PCM_S16LE,
}
_PARTS_SECONDS = 60.0
_POLL_SECONDS = 0.1
_PREFIX = "CONTAINER_"


def measure(bench: Bench) -> Sequence[Figure]:
    """Measures it."""
    folder = bench.folder / _NAME
    clip = bench.material.talking[0].path
    figures = []
    try:
        for store in ("disk", "bucket"):
            with _stored(store) as (settings, server), Service(folder / store) as service:
                service.set_storage(settings)
                for container in _CODECS:
                    seconds = _measured(service, folder / store, container, clip, server)
                    figures.append(
                        _figure(f"{store} {media_pb2.Container.Name(container)[len(_PREFIX) :]}", seconds)
                    )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return figures


def _figure(what: str, seconds: float) -> Figure:
    return Figure(
        name=f"{_NAME} {what}",
        ours=seconds,
        peer=None,
        peer_name=None,
        goal=_GOAL,
        unit="seconds",
        lower_is_better=True,
    )


@contextmanager
def _stored(store: str) -> Iterator[tuple[storage_pb2.StorageSettings, str]]:
    """The settings of the store, and for a bucket where its objects are served as plain files."""
    if store == "disk":
        yield disk_settings(), ""
        return
    # Its name must be short, for the sockets in it.
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, weed_server(Path(folder), BUCKET) as weed:
        yield weed_settings(weed), f"{weed.filer}/buckets/{BUCKET}/"


def _measured(
    service: Service, folder: Path, container: media_pb2.Container.ValueType, clip: Path, server: str
) -> float:
    room_id = service.new_room(room_pb2.ROOM_CLOCK_MEDIA)
    codec = media_pb2.Codec.Name(_CODECS[container])
    arguments = (service.target, APP, room_id, codec, str(clip), str(_SECONDS))
    with Child("tests.bench.player", *arguments) as player:
        player.number("opened")
        task_id = service.start(room_id, task_pb2.RECORD_MODE_SINGLE, container)
        player.tell("play")
        player.number("acknowledged")
        _await_parts(folder, container)
        seconds = service.seconds_to_complete(task_id)
        player.tell("leave")
    _check(service.finish([task_id]), server)
    return seconds


def _await_parts(folder: Path, container: media_pb2.Container.ValueType) -> None:
    """Waits until each part that is final is in the store."""
    suffix = media_pb2.Container.Name(container)[len(_PREFIX) :].lower()
    (media,) = (folder / "spool").rglob(f"*.{suffix}")
    # The first goes last.
    expected = max(0, settled_parts(media.stat().st_size, PART_BYTES) - 1)
    deadline = time.monotonic() + _PARTS_SECONDS
    while (sent := _parts_sent(folder)) < expected:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{sent} of {expected} parts were sent while it was recorded")
        time.sleep(_POLL_SECONDS)


def _parts_sent(folder: Path) -> int:
    with closing(sqlite3.connect(f"file:{folder / 'roomtape.db'}?mode=ro", uri=True)) as database:
        (sent,) = database.execute("SELECT COUNT(*) FROM parts WHERE tag != ''").fetchone()
    return int(sent)


def _check(segments: Sequence[segment_pb2.Segment], server: str) -> None:
    """There is one file, and an hour in it."""
    if len(segments) != 1:
        raise RuntimeError(f"{len(segments)} segments instead of one")
    (segment,) = segments
    source = server + segment.object_key if server else unquote(urlsplit(segment.url).path)
    samples = 0
    with av.open(source) as media:
        for frame in media.decode(audio=0):
            samples += frame.samples
    seconds = samples / segment.sample_rate_hz
    if abs(seconds - _SECONDS) > _TOLERANCE_SECONDS or segment.statistics.lost or segment.interrupted:
        raise RuntimeError(f"{seconds:.2f} s are in a file that is not as it should be: {segment}")
