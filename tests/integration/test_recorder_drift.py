"""A long room on its publishers' clock, as fast as it goes: pauses and drift, and everybody ends where they
should."""

from pathlib import Path

import numpy as np
import pytest

from roomtape_service.recording import protocol
from roomtape_service.recording.protocol import Container, RecordingKind, RoomClock
from tests.support.audio import ffmpeg_decode
from tests.support.recorder import EPOCH_NS, MS, SECOND, Publisher, RecorderNode, order

RATE = 8_000
FRAME = RATE // 50
MINUTES = 45
SPURT_BATCHES = 30
PAUSE_NS = 9 * SECOND
CLICK = 20_000


@pytest.mark.parametrize("drift_ppm", [100, -100])
async def test_forty_five_minutes_end_within_a_millisecond_of_the_truth(
    tmp_path: Path, drift_ppm: int
) -> None:
    publisher = Publisher(1, rate=RATE, drift_ppm=drift_ppm)
    # Each spurt begins with a click in a quiet that is not silence, so that nothing is made good inside of it.
    quiet = np.full(FRAME, 100, np.int16)
    click = quiet.copy()
    click[0] = CLICK
    truths: list[float] = []
    async with RecorderNode(tmp_path) as node:
        node.tell(protocol.RoomOpen(1, RoomClock.MEDIA, EPOCH_NS), publisher.open())
        node.tell(order("r"), protocol.RecordingTracks("r", (1,)))
        node.tell(order("m", Container.MP3, kind=RecordingKind.MIXED), protocol.RecordingTracks("m", (1,)))
        while publisher.media_ns < MINUTES * 60 * SECOND:
            truths.append((publisher.capture_ns() - EPOCH_NS) / SECOND)
            for batch in range(SPURT_BATCHES):
                frames = [
                    publisher.frame((quiet if batch or index else click).tobytes(), FRAME)
                    for index in range(5)
                ]
                node.write(publisher.message(publisher.batch(frames)))
            publisher.log.clear()
            for _ in range(PAUSE_NS // (500 * MS)):
                publisher.pause(500 * MS)
                node.write(publisher.message(publisher.batch()))
            await node.drain()
        end_ns = publisher.capture_ns()
        node.tell(protocol.TrackClose(1, end_ns))
        [segment] = await node.stop("r", end_ns)
        [mixed] = await node.stop("m", end_ns)
    signal = ffmpeg_decode(segment.files[0].path)
    clicks = np.flatnonzero(signal > CLICK // 2) / RATE
    assert len(clicks) == len(truths)
    errors = np.abs(clicks - np.array(truths))
    assert errors.max() < 0.001
    for each in (segment, mixed):
        assert abs(each.end_ns - end_ns) < MS
        assert each.statistics.lost == each.statistics.rejected == 0
