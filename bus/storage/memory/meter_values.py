"""The values of one series of the meter: all of them, and those of the last minutes.

A window of recent values has two generations. So an old value is dropped by a subtraction, and a
new one costs only a comparison of two times.
"""

from typing import Final

from bus.messaging.histograms import subtract

__all__ = ["GENERATION_SECONDS", "LATEST_SECONDS", "Histogram", "Number"]

GENERATION_SECONDS: Final = 60
"""Seconds after which the values of `recent` begin to be dropped. They last up to twice as long."""
LATEST_SECONDS: Final = 10
"""As `GENERATION_SECONDS`, for the latest value of a counter."""
EXEMPLAR_SECONDS: Final = 10
"""Minimum age in seconds of an exemplar that a later value of the same bucket replaces."""
TRACE_ID_LENGTH = 32


class Window:
    """The part of a counter's value that is from the last one to two generations."""

    __slots__ = ("before", "middle", "rotates", "seconds")

    def __init__(self, now: float, seconds: float) -> None:
        """Begin the first generation, which lasts `seconds`."""
        self.seconds = seconds
        self.before: float = 0
        """The value at the begin of the previous generation."""
        self.middle: float = 0
        """The value at the begin of this generation."""
        self.rotates = now + seconds
        """The end of this generation."""

    def rotate(self, now: float, value: float) -> None:
        """Begin the next generation. If a whole generation had no value, drop both."""
        is_next = now < self.rotates + self.seconds
        self.before = self.middle if is_next else value
        self.middle = value
        # The generation begins when the former one ended, also if no value was reported then.
        self.rotates = (self.rotates if is_next else now) + self.seconds

    def part_of(self, value: float, now: float) -> float:
        """Return the part of the present value that is from this window."""
        # A reader in another thread must not rotate, so this method only looks at the time.
        earlier = value
        if now < self.rotates:
            earlier = self.before
        elif now < self.rotates + self.seconds:
            earlier = self.middle
        return max(0, value - earlier)  # this process can rotate while another thread reads


class Number:
    """The value of a counter or a gauge. A counter also has its values of two recent windows."""

    __slots__ = ("last", "latest", "recent", "rotates", "value")

    def __init__(self, now: float) -> None:
        """Begin with 0 at the time `now`, in seconds since the epoch."""
        self.value: float = 0
        self.last: float = 0
        self.recent = Window(now, GENERATION_SECONDS)
        self.latest = Window(now, LATEST_SECONDS)
        self.rotates = self.latest.rotates
        """The end of the shorter generation."""

    def rotate(self, now: float) -> None:
        """Begin the next generation of the shorter window, and of the longer one if it ended."""
        self.latest.rotate(now, self.value)
        self.rotates = self.latest.rotates
        if now >= self.recent.rotates:
            self.recent.rotate(now, self.value)

    def set(self, value: float) -> None:
        """Set the value of a gauge, which has no recent values."""
        self.value = value
        for window in (self.recent, self.latest):
            window.before = window.middle = value

    def fields(self, now: float) -> dict[str, object]:
        """Return the fields of the `Series`. It can be called from any thread."""
        value = self.value
        return {
            "value": value,
            "recent_value": self.recent.part_of(value, now),
            "latest_value": self.latest.part_of(value, now),
            "last": int(self.last * 1000),
        }


class Histogram:
    """The values of a histogram, with those of the last 1 to 2 minutes.

    An observation changes only `buckets`. The recent values are the difference to an earlier copy.
    """

    __slots__ = (
        *("before", "buckets", "earlier_max", "exemplars", "largest", "last"),
        *("latest_max", "middle", "rotates", "total"),
    )

    def __init__(self, now: float) -> None:
        """Begin without values at the time `now`, in seconds since the epoch."""
        self.buckets: dict[int, int] = {}
        self.total: float = 0
        self.largest: float = 0
        self.last: float = 0
        self.exemplars: dict[int, tuple[str, float, int]] = {}
        self.before: dict[int, int] = {}
        """The buckets at the begin of the previous generation."""
        self.middle: dict[int, int] = {}
        """The buckets at the begin of this generation."""
        self.earlier_max: float = 0
        """The largest value of the previous generation."""
        self.latest_max: float = 0
        """The largest value of this generation."""
        self.rotates = now + GENERATION_SECONDS
        """The end of this generation."""

    def rotate(self, now: float) -> None:
        """Begin the next generation. If a whole generation had no value, drop both."""
        is_next = now < self.rotates + GENERATION_SECONDS
        self.before = self.middle if is_next else self.buckets.copy()
        self.earlier_max = self.latest_max if is_next else 0
        self.middle, self.latest_max = self.buckets.copy(), 0
        self.rotates = (self.rotates if is_next else now) + GENERATION_SECONDS

    def add_exemplar(self, bucket: int, trace_id: str, value: float, now: float) -> None:
        """Keep the trace of a value, unless its bucket has a fresh one."""
        known = self.exemplars.get(bucket)
        is_fresh = known is not None and now * 1000 - known[2] < EXEMPLAR_SECONDS * 1000
        if not is_fresh and len(trace_id) == TRACE_ID_LENGTH and trace_id.isalnum():
            self.exemplars[bucket] = (trace_id, value, int(now * 1000))

    def fields(self, now: float) -> dict[str, object]:
        """Return the fields of the `Series`. It can be called from any thread."""
        # A reader in another thread must not rotate, so this method only looks at the time.
        buckets = self.buckets.copy()
        if now < self.rotates:
            recent, largest = self.before, max(self.earlier_max, self.latest_max)
        elif now < self.rotates + GENERATION_SECONDS:
            recent, largest = self.middle, self.latest_max
        else:
            recent, largest = buckets, 0
        return {
            "value": self.total,
            "count": sum(buckets.values()),
            "max": self.largest,
            "buckets": buckets,
            "recent": subtract(buckets, recent),
            "recent_max": largest,
            "exemplars": self.exemplars.copy(),
            "last": int(self.last * 1000),
        }
