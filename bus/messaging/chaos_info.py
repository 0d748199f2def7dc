"""The chaos experiment of one process, as the control channel and the commands show it."""

from typing import Annotated, Final

from pydantic import Field

from bus.messaging.service_info import (
    MAX_LABELS,
    Count,
    InstanceState,
    Milliseconds,
    Name,
    Record,
    Text,
)
from bus.messaging.timers import utc_time

__all__ = ["ChaosInfo", "InstanceChaos"]

MAX_RULES: Final = 500


class ChaosInfo(Record):
    """A chaos experiment that is running."""

    rules: Annotated[tuple[Text, ...], Field(max_length=MAX_RULES)]
    """The faults of each operation, for example `billing.quote: error=unavailable@5%`."""
    since: Milliseconds
    """Begin of the experiment, in milliseconds since the epoch."""
    until: Milliseconds
    """End of the experiment, in milliseconds since the epoch."""
    ordered_by: Name
    """Operator who started the experiment, or `the settings`."""
    reason: Text = ""
    """Reason that the operator gave."""
    seed: Count
    """Seed of the random numbers."""
    faults: Annotated[dict[Name, Count], Field(max_length=MAX_LABELS)] = Field(default_factory=dict)
    """Number of injected faults by their kind."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The rules, each with the person who started the experiment and its end."""
        ends = utc_time(self.until / 1000)
        return tuple(f"{rule} (by {self.ordered_by}, until {ends})" for rule in self.rules)


class InstanceChaos(InstanceState):
    """The answer to the question for the chaos experiment of an instance."""

    chaos: ChaosInfo | None = None
    """None if no experiment runs."""
