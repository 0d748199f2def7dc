"""The pause of one consumer by an operator."""

from dataclasses import dataclass

from bus.messaging.jobs.pauses import Pause
from bus.messaging.labels import one_line
from bus.messaging.records import MAX_NAME_LENGTH
from bus.messaging.service_info import PauseInfo

__all__ = ["OPERATOR_PAUSE", "STUCK_HANDLER", "OperatorPause"]

OPERATOR_PAUSE = "operator"
"""Reason of a pause: an operator has requested it."""
STUCK_HANDLER = "stuck-handler"
"""Reason that is reported beside the pauses: the handler of a cancelled job does not end."""


@dataclass(frozen=True, slots=True)
class OperatorPause:
    """A pause as one process knows it."""

    pause: Pause
    is_stored: bool
    """True if the store keeps the pause, so instances that start later are paused, too."""

    def info(self) -> PauseInfo:
        """Return the pause for reports."""
        pause = self.pause
        return PauseInfo(
            by=one_line(pause.by)[:MAX_NAME_LENGTH],
            reason=one_line(pause.reason),
            at=int(pause.at * 1000),
            until=None if pause.until is None else int(pause.until * 1000),
            stored=self.is_stored,
        )
