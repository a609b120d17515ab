"""Where the next frame of a track stands when its publisher does not say."""

from roomtape.client.frames import samples_ns

__all__ = ["PAUSE_NS", "TrackTiming"]

# A publisher's capture times jitter; what is longer than this is a pause of the track.
PAUSE_NS = 200_000_000


class TrackTiming:
    """Media and capture time of frames; counted in samples from the last anchor, so that rounding can't add up."""

    def __init__(self, rate_hz: int) -> None:
        self.started = False
        self._rate_hz = rate_hz
        self._media_ns = 0
        self._capture_ns = 0
        self._media_samples = 0
        self._capture_samples = 0

    @property
    def media_end_ns(self) -> int:
        """Media time after the last frame."""
        return self._media_ns + samples_ns(self._media_samples, self._rate_hz)

    @property
    def capture_end_ns(self) -> int:
        """Capture time after the last frame; where the track begins before the first one."""
        return self._capture_ns + samples_ns(self._capture_samples, self._rate_hz)

    def start(self, capture_ns: int) -> None:
        """Says when the track begins."""
        self._capture_ns, self._capture_samples, self.started = capture_ns, 0, True

    def place(
        self, samples: int, now_ns: int | None, capture_ns: int | None, media_ns: int | None
    ) -> tuple[int, int]:
        """Media and capture time of a frame with `samples`; the next frame goes on after it.

        `now_ns` is the clock of a live track: a frame without a capture time ended just now. It is None on a
        MEDIA clock: such a frame follows the one before. Media time runs on from frame to frame, but for a pause
        in capture times that were given.
        """
        if media_ns is None and capture_ns is not None and self.started:
            pause_ns = capture_ns - self.capture_end_ns
            media_ns = self.media_end_ns + pause_ns if pause_ns >= PAUSE_NS else None
        if capture_ns is None and now_ns is not None:
            capture_ns = now_ns - samples_ns(samples, self._rate_hz)
            capture_ns = max(capture_ns, self._capture_ns) if self.started else capture_ns
        if capture_ns is not None:
            self.start(capture_ns)
        if media_ns is not None:
            self._media_ns, self._media_samples = media_ns, 0
        placed = self.media_end_ns, self.capture_end_ns
        self._media_samples += samples
        self._capture_samples += samples
        return placed
