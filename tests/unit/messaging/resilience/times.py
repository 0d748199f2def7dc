"""A timer and a clock that a test moves by hand."""


class Times:
    """The monotonic timer of a process, and its clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.offset = 1_700_000_000.0
        """Difference between the clock and the timer."""

    def timer(self) -> float:
        return self.now

    def clock(self) -> float:
        return self.now + self.offset

    def after(self, seconds: float) -> int:
        """Return the time in so many seconds, in milliseconds since the epoch."""
        return round((self.clock() + seconds) * 1000)
