"""The progress updates that a handle of a job has received."""

from collections import deque
from collections.abc import Iterator

from bus.messaging.envelope import Envelope, Progress
from bus.messaging.progress_bounds import decode_progress

__all__ = ["MAX_UPDATES", "ReceivedUpdates"]

MAX_UPDATES = 1000
"""The maximum number of progress updates that a handle keeps for slow readers.

If there are more, the handle drops the oldest updates.
"""


class ReceivedUpdates:
    """The last updates of one job. Each has a number, also if its service sent none."""

    def __init__(self) -> None:
        self._kept: deque[Progress] = deque(maxlen=MAX_UPDATES)
        self.count = 0
        """Number of updates that were added."""
        self.number = 0
        """Highest number of an update."""
        self._asked_number = 0
        """Number of the last update that the handle has asked for.

        Such an update is not added again if it is pushed later.
        """

    def add(self, update: Envelope) -> None:
        """Add an update that was pushed.

        Raises:
            ContractViolation: The update is not valid.
        """
        progress = decode_progress(update.body)
        if not progress.number:
            progress = progress.model_copy(update={"number": self.number + 1})
        elif progress.number <= self._asked_number:
            return
        self.number = max(self.number, progress.number)
        self._kept.append(progress)
        self.count += 1

    def add_asked(self, update: Envelope, number: int) -> None:
        """Add an update that the handle has asked for, unless it was pushed before.

        Raises:
            ContractViolation: The update is not valid.
        """
        if number > self.number:
            self.add(update)
            self._asked_number = number

    def since(self, seen: int) -> Iterator[tuple[int, Progress]]:
        """Yield the updates after the first `seen` ones, each with its position from 1.

        Updates that were dropped are skipped. Those that are added during the iteration are
        included.
        """
        while seen < self.count:
            seen = max(seen, self.count - len(self._kept))
            update = self._kept[seen - self.count]
            seen += 1
            yield seen, update
