"""Where a track's own time lies in the room's time.

A frame names two times of its publisher: media time, counted on the track's sample clock, and capture time, read
from the publisher's UTC clock. Capture times are late by chance, never early, and so are arrivals; the smallest of
what was seen in the last seconds is nearest to the truth. So, with minima over `SKEW_WINDOW_NS` and
`DELAY_WINDOW_NS`:

- skew = min(capture time - media time): from media time to the publisher's clock;
- delay = min(arrival - sent time): from the publisher's clock to the room's; 0 in a room whose clock is the media's;
- target = skew + delay: from media time to room time.

What is used follows the target by at most `SLEW` of the time that passed, and jumps only if it is further away than
`JUMP_NS`. A simulated hour with 100 ppm of drift and 15 ms of jitter stays within half a millisecond.
"""

from collections import deque
from typing import Final

from roomtape_service.clock import NANOSECONDS
from roomtape_service.recording.protocol import RoomClock

__all__ = ["DELAY_WINDOW_NS", "JUMP_NS", "SKEW_WINDOW_NS", "RoomMapping", "WindowedMinimum"]

DELAY_WINDOW_NS: Final = 5 * NANOSECONDS
"""Shorter windows follow the network's jitter, longer ones lag behind drift."""
SKEW_WINDOW_NS: Final = 2 * NANOSECONDS
"""Stamps of capture are late by less, and come with every frame."""
JUMP_NS: Final = NANOSECONDS // 5
"""Nothing drifts that far: a clock was set, or a source was paused."""
_SLEW_NUMERATOR, _SLEW_DENOMINATOR = 5, 1000
_SETTLED_NS = NANOSECONDS // 10
"""Values that are no new minimum are noted this often; more would not change what the window holds."""


class WindowedMinimum:
    """The smallest of the values of the last `window_ns`."""

    def __init__(self, window_ns: int, *, keeps_through_holes: bool) -> None:
        """`keeps_through_holes`: after a hole in the observations the old minimum counts for another window, since
        the first values after it may all be late."""
        self._window_ns = window_ns
        self._values: deque[tuple[int, int]] = deque()
        self._keeps_through_holes = keeps_through_holes
        self._noted_ns = 0

    @property
    def value(self) -> int | None:
        """None before the first observation."""
        return self._values[0][1] if self._values else None

    def covers(self, at_ns: int, value: int) -> bool:
        """Whether observing `value` would change nothing: no minimum, not far from it, soon after the last."""
        values = self._values
        return (
            bool(values) and 0 <= value - values[0][1] < JUMP_NS and 0 <= at_ns - self._noted_ns < _SETTLED_NS
        )

    @property
    def covered(self) -> tuple[int, int, int, int] | None:
        """What `covers` holds for: times from and before, values from and before; None if for nothing."""
        values = self._values
        if not values:
            return None
        noted_ns, minimum = self._noted_ns, values[0][1]
        return noted_ns, noted_ns + _SETTLED_NS, minimum, minimum + JUMP_NS

    def observe(self, at_ns: int, value: int) -> None:
        """A value that was seen at `at_ns`, which never goes back by much."""
        if self.covers(at_ns, value):
            return
        values = self._values
        hole = at_ns - self._noted_ns > self._window_ns
        self._noted_ns = at_ns
        if hole and values and self._keeps_through_holes:
            minimum = values[0][1]
            values.clear()
            values.append((at_ns, minimum))
        while values and values[-1][1] >= value:
            values.pop()
        values.append((at_ns, value))
        while values[0][0] < at_ns - self._window_ns:
            values.popleft()

    def shift(self, at_ns: int, value: int) -> None:
        """Everything that was seen is void; `value` holds from here."""
        self._values.clear()
        self._values.append((at_ns, value))
        self._noted_ns = at_ns


class RoomMapping:
    """The mapping of one track; times in nanoseconds."""

    def __init__(self, clock: RoomClock, offset_ns: int | None) -> None:
        """`offset_ns`: what to go on with from before."""
        self._delay = (
            WindowedMinimum(DELAY_WINDOW_NS, keeps_through_holes=True) if clock is RoomClock.ARRIVAL else None
        )
        self._skew = WindowedMinimum(SKEW_WINDOW_NS, keeps_through_holes=False)
        self._offset_ns = offset_ns
        self._moved_ns: int | None = None
        self._behind_ns = 0
        self._last_delay_ns = 0

    def observe_sending(self, sent_ns: int, arrival_ns: int) -> None:
        """A batch that was sent at `sent_ns` by the publisher's clock arrived."""
        if self._delay is not None:
            self._last_delay_ns = arrival_ns - sent_ns
            self._delay.observe(arrival_ns, self._last_delay_ns)

    def observe_capture(self, media_ns: int, capture_ns: int) -> None:
        """A frame was captured."""
        skew_ns = capture_ns - media_ns
        known = self._skew.value
        if known is not None and not -JUMP_NS <= skew_ns - known <= NANOSECONDS:
            self._clock_was_set(skew_ns - known, capture_ns)
            self._skew.shift(capture_ns, skew_ns)
            return
        self._skew.observe(capture_ns, skew_ns)
        if known is None and self._offset_ns is not None and self._delay is not None:
            # A publisher who is catching up is late with everything; what held before holds until more is known.
            self._delay.observe(capture_ns + self._last_delay_ns, self._offset_ns - skew_ns)

    def is_usual(self, media_ns: int, capture_ns: int) -> bool:
        """Whether a frame tells nothing new, soon after the last that did; then it need not be looked at further."""
        return self._skew.covers(capture_ns, capture_ns - media_ns)

    @property
    def usual(self) -> tuple[int, int, int, int] | None:
        """What `is_usual` holds for: capture times from and before, and how far they are from media times, from and
        before; None if for nothing."""
        return self._skew.covered

    def is_discontinuous(self, media_ns: int, capture_ns: int) -> bool:
        """Whether the track's sample clock stood still before this frame: more than a stamp that came late."""
        known = self._skew.value
        if known is None or capture_ns - media_ns - known <= NANOSECONDS:
            return False
        return not self._is_clock_step(capture_ns - media_ns - known)

    def offset_ns(self, at_ns: int) -> int:
        """What added to media time gives room time, at room time `at_ns`."""
        skew_ns = self._skew.value
        if skew_ns is None:
            return self._offset_ns or 0
        target = skew_ns + self.delay_ns
        if self._offset_ns is None:
            self._offset_ns = target
        elif self._moved_ns is not None:
            reach = max(0, at_ns - self._moved_ns) * _SLEW_NUMERATOR // _SLEW_DENOMINATOR
            distance = target - self._offset_ns
            if abs(distance) > JUMP_NS:
                self._offset_ns = target
            else:
                self._offset_ns += max(-reach, min(reach, distance))
        self._behind_ns = target - self._offset_ns
        self._moved_ns = at_ns if self._moved_ns is None else max(at_ns, self._moved_ns)
        return self._offset_ns

    @property
    def delay_ns(self) -> int:
        """From the publisher's clock to the room's."""
        return (self._delay.value or 0) if self._delay is not None else 0

    def room_ns(self, publisher_ns: int) -> int:
        """Room time of a time of the publisher's clock, as far behind the target as the newest frame's was."""
        return publisher_ns + self.delay_ns - self._behind_ns

    def _is_clock_step(self, step_ns: int) -> bool:
        """Whether the publisher's UTC clock was set: then what it says of sending moved the other way."""
        if self._delay is None:
            return False
        return abs(self._last_delay_ns + step_ns - self.delay_ns) < abs(step_ns) // 2

    def _clock_was_set(self, step_ns: int, capture_ns: int) -> None:
        if self._delay is not None and self._is_clock_step(step_ns):
            self._delay.shift(capture_ns + self._last_delay_ns, self.delay_ns - step_ns)
