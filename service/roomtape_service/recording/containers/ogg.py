"""Ogg with Opus packets as they came. Gaps are filled with packets of silence, so that the granule position
follows the timeline to within 2.5 ms."""

import os
from collections import deque

from roomtape_service.recording.containers.ogg_pages import (
    PAGE_SEGMENTS_MAX,
    header_pages,
    mark_last_page,
    packet_segments,
    page,
    unmark_last_page,
)
from roomtape_service.recording.containers.output import OutputFile
from roomtape_service.recording.opus import SILENCE_UNIT_SAMPLES, silence_packets
from roomtape_service.recording.protocol import Container

__all__ = ["OggWriter", "finish_ogg", "growing_ogg_tail"]

_TAIL_BYTES = 128 * 1024
"""Holds the longest page, and whatever looks like the start of one in it."""


class OggWriter:
    """See ContainerWriter."""

    container = Container.OGG

    def __init__(self, path: str, channels: int, serial: int) -> None:
        self.file = OutputFile(path)
        self._channels = channels
        self._serial = serial
        self._page_number = 2
        self._granule = 0
        # Packets, or None for silence, with their duration and where they end on the timeline.
        self._items: deque[tuple[bytes | None, int, int]] = deque()
        self._added = 0
        self._pending = [header_pages(serial, channels)]

    @property
    def ready(self) -> int:
        return self._added

    def add_pcm(self, pcm: bytes) -> None:
        raise TypeError("Ogg takes packets")

    def add_packet(self, packet: bytes, duration: int, samples: int) -> None:
        self._added += samples
        self._items.append((packet, duration, self._added))

    def add_silence(self, samples: int) -> None:
        self._added += samples
        self._items.append((None, samples, self._added))

    def cut(self, samples: int) -> int:
        self._page_out(self._take(samples))
        if self._pending:
            self.file.append(b"".join(self._pending))
            self._pending.clear()
        return self.file.size

    def end(self) -> None:
        pass

    def _take(self, samples: int) -> list[tuple[bytes, int]]:
        """Removes what lies before `samples` as packets with durations."""
        items, packets = self._items, list[tuple[bytes, int]]()
        granule = self._granule
        while items:
            packet, duration, end = items[0]
            if packet is not None:
                if end > samples:
                    break
                packets.append((packet, duration))
                granule += duration
                items.popleft()
                continue
            until = min(end, samples)
            if until - granule >= SILENCE_UNIT_SAMPLES:
                filling = silence_packets(until - granule, self._channels)
                packets += filling
                granule += sum(length for _, length in filling)
            if end > samples:
                break
            items.popleft()
        return packets

    def _page_out(self, packets: list[tuple[bytes, int]]) -> None:
        batch: list[bytes] = []
        segments = 0
        for packet, duration in packets:
            need = packet_segments(len(packet))
            if segments + need > PAGE_SEGMENTS_MAX:
                self._add_page(batch)
                batch, segments = [], 0
            batch.append(packet)
            segments += need
            self._granule += duration
        if batch:
            self._add_page(batch)

    def _add_page(self, packets: list[bytes]) -> None:
        self._pending.append(page(packets, self._granule, self._serial, self._page_number))
        self._page_number += 1


def finish_ogg(path: str, size: int) -> int:
    """Cuts a file to the `size` that `cut` gave, and marks its last page as the last. Idempotent. Returns the
    samples that it plays.

    Raises OSError, and ValueError if the file is not one of `OggWriter`.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        start = max(0, size - _TAIL_BYTES)
        at, marked, granule = mark_last_page(os.pread(fd, size - start, start))
        os.pwrite(fd, marked, start + at)
    finally:
        os.close(fd)
    return granule


def growing_ogg_tail(fd: int, size: int) -> tuple[int, bytes]:
    """Where the last page of the first `size` bytes begins, and the page as it was before the file was finished.

    Raises OSError, and ValueError if no page ends there.
    """
    start = max(0, size - _TAIL_BYTES)
    at, page_bytes = unmark_last_page(os.pread(fd, size - start, start))
    return start + at, page_bytes
