"""A publish that the broker refuses: it closes the channel, and names what was refused, but no message.

It works through a channel in the order of what was written there. So the first publish that goes where the refusal says is the
one that was refused: what was written before it has been taken, and what was written behind it was dropped.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bus.errors import BusError, ConnectionLost, PermissionDenied
from bus.topology import Address

__all__ = ["REFUSED", "Closing", "is_refusal_of"]

REFUSED = "ACCESS_REFUSED"
"""What the broker says to who may not publish that, or there."""
# RabbitMQ 3.10: access to topic 'key' in exchange 'name' in vhost '/' refused for user 'name'. Later ones say which access.
NAMED = re.compile(r"access to (?:topic '(?P<key>[^']*)' in )?exchange '(?P<exchange>[^']*)' in vhost ")
DEFAULT_EXCHANGE = "amq.default"
"""What the broker calls the exchange that has no name."""


def is_refusal_of(why: str, address: Address) -> bool:
    """Whether the broker's words are about what goes to `address`: to that exchange, and with that key where they name one."""
    named = NAMED.search(why) if REFUSED in why else None
    if named is None:
        return False
    exchange = "" if named["exchange"] == DEFAULT_EXCHANGE else named["exchange"]
    return exchange == address.exchange and named["key"] in {None, address.routing_key}


@dataclass(frozen=True, slots=True)
class Closing:
    """The end of a channel that publishes."""

    why: str
    written: Sequence[Address]
    """Where went what the broker may not have worked off, in the order in which it was written."""

    @property
    def culprit(self) -> int | None:
        """Which of them was refused; None where it was none, or nobody can say. Alone it needs no name."""
        if REFUSED not in self.why:
            return None
        if len(self.written) == 1:
            return 0
        return next((number for number, address in enumerate(self.written) if is_refusal_of(self.why, address)), None)

    def fates(self) -> list[BusError]:
        """What became of each, as an error. What was surely not sent is a `ConnectionLost` without `maybe_executed`."""
        culprit = self.culprit
        return [self._fate(number, culprit) for number in range(len(self.written))]

    def _fate(self, number: int, culprit: int | None) -> BusError:
        if culprit is None or number < culprit:
            return ConnectionLost(f"no confirm: {self.why}", maybe_executed=True)
        if number == culprit or is_refusal_of(self.why, self.written[number]):
            return PermissionDenied(f"not sent: {self.why}")
        return ConnectionLost("not sent: the channel was closed")
