"""How often an application may call: a token bucket each."""

from collections import OrderedDict
from dataclasses import dataclass

from roomtape.v1 import error_pb2
from roomtape_service.clock import NANOSECONDS, Clock
from roomtape_service.errors import Refusal

__all__ = ["MAX_BUCKETS", "RateLimit"]

# Ids are not checked for existence here, so their number is the caller's choice; the longest unused go first.
MAX_BUCKETS = 10_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_ns: int


class RateLimit:
    """A steady rate with a burst for each application. Owned by one event loop."""

    def __init__(self, calls_per_second: float, burst: int, clock: Clock) -> None:
        self._rate = calls_per_second
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, app_id: str) -> None:
        """Counts one call.

        Raises Refusal RATE_LIMITED, with the wait for the next token, when none is left.
        """
        now_ns = self._clock.monotonic_ns()
        bucket = self._buckets.get(app_id)
        if bucket is None:
            bucket = self._buckets[app_id] = _Bucket(self._burst, now_ns)
            if len(self._buckets) > MAX_BUCKETS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(app_id)
        grown = (now_ns - bucket.filled_ns) * self._rate / NANOSECONDS
        bucket.tokens = min(float(self._burst), bucket.tokens + grown)
        bucket.filled_ns = now_ns
        if bucket.tokens < 1:
            wait_seconds = (1 - bucket.tokens) / self._rate
            raise Refusal(
                error_pb2.ERROR_REASON_RATE_LIMITED,
                f"The application {app_id!r} makes more than {self._rate:g} such calls a second "
                f"(burst {self._burst}); call again in {wait_seconds:.3f} s.",
                metadata={
                    "appId": app_id,
                    "callsPerSecond": f"{self._rate:g}",
                    "burst": str(self._burst),
                    "retryAfterSeconds": f"{wait_seconds:.3f}",
                },
                retry_after_seconds=wait_seconds,
            )
        bucket.tokens -= 1
