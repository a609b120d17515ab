"""Documents on their way into an application's stores: to the second one where the first is down."""

import asyncio
import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from roomtape_service.database.lanes import FailingLane
from roomtape_service.storage.lane import Lane
from roomtape_service.storage.part import PART_BYTES
from roomtape_service.storage.store import Store, StoreError
from roomtape_service.storage.stores import Destination, Destinations

__all__ = ["CONTENT_TYPE", "Way", "put_document"]

CONTENT_TYPE = "application/json"

_PARALLEL_OF_ONE = 4
"""Of one application; with a store in trouble one."""


@dataclass(slots=True, eq=False)
class Way:
    """How one application's manifests go to its stores; times in UTC nanoseconds."""

    first: Lane = field(default_factory=Lane)
    second: Lane = field(default_factory=Lane)
    failing_ns: int | None = None
    """Since when the first store takes nothing."""
    switch_ns: int | None = None
    """From when on they go to the secondary store; None while that is not known, or there is none."""
    next_ns: int = 0
    """Not before this is anything tried."""
    revision: int = 0
    """Of the application when its stores were last asked for: with new settings, trouble may be over."""
    in_hand: set[str] = field(default_factory=set)
    """Ids of the tasks whose manifests are being written."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost by forgetting it."""
        return not self.in_hand and self.failing_ns is None and self.second.trouble is None

    def free(self, now_ns: int) -> int:
        """How many may be begun now."""
        if self.failing_ns is None:
            return max(0, _PARALLEL_OF_ONE - len(self.in_hand))
        return 1 if now_ns >= self.next_ns and not self.in_hand else 0

    def choices(
        self, places: Destinations, failing: FailingLane | None, now_ns: int
    ) -> list[tuple[Destination, Lane]]:
        """Where to put a document, the next if the one before fails: the first store, or the second where that is down.

        `failing` is what is known of the first by segments. Now and then the first is tried again.
        """
        first, second = (places.first, self.first), places.second
        if second is None:
            return [first]
        if failing is not None and failing.uses_secondary and failing.store == places.first.store.identity:
            return [(second, self.second)]
        self.switch_ns = None if self.failing_ns is None else self.failing_ns + places.second_after_ns
        if self.switch_ns is None or now_ns < self.switch_ns:
            return [first]
        return [first, (second, self.second)] if now_ns >= self.first.next_ns else [(second, self.second)]

    def failed(
        self,
        lane: Lane,
        error: StoreError,
        now_ns: int,
        randomness: random.Random,
        places: Destinations | None = None,
    ) -> None:
        """A store did not take a document."""
        lane.failed(error, now_ns, randomness)
        if self.failing_ns is None:
            self.failing_ns = now_ns
            if places is not None and places.second is not None:
                self.switch_ns = now_ns + places.second_after_ns
        self.next_ns = lane.next_ns
        if lane is self.first and self.switch_ns is not None and now_ns < self.switch_ns:
            self.next_ns = min(self.next_ns, self.switch_ns)

    def succeeded(self, lane: Lane) -> None:
        """A store took a document."""
        lane.succeeded()
        self.next_ns = 0
        if lane is self.first:
            self.failing_ns = self.switch_ns = None
            self.second = Lane()

    def begin_again(self, revision: int) -> None:
        """The application's settings have changed."""
        self.first, self.second = Lane(), Lane()
        self.failing_ns = self.switch_ns = None
        self.next_ns, self.revision = 0, revision


async def put_document(store: Store, key: str, data: bytes, sha256: str) -> None:
    """Puts a document of any size. Raises StoreError."""
    if len(data) <= PART_BYTES:
        await store.put_bytes(key, data, CONTENT_TYPE)
        return
    with tempfile.TemporaryDirectory(prefix="roomtape-manifest-") as folder:
        path = Path(folder, "manifest.json")
        await asyncio.to_thread(path.write_bytes, data)
        await store.put(key, path, sha256, CONTENT_TYPE)
