"""A publish that the broker refuses: it closes the channel, and names what was refused, but no message.

It works through a channel in the order of what was written there: what was written before the refused one has been taken, and what
was written behind it was dropped. Where several go where the refusal says, any of them may be the one: a right can be revoked between
two, and RabbitMQ notices whenever it has forgotten that it allowed the first. So only of the last of them, and of what was written
behind it, is it sure that it was not sent.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from bus.errors import BusError, ConnectionLost, PermissionDenied
from bus.messaging.topology.addresses import Address

__all__ = ["REFUSED", "ChannelClosure", "is_access_refused"]

REFUSED = "ACCESS_REFUSED"
"""What the broker says to who may not publish that, or there."""
# RabbitMQ 3.10: access to topic 'key' in exchange 'name' in vhost '/' refused for user 'name'. Later ones say which access.
NAMED = re.compile(
    r"access to (?:topic '(?P<key>[^']*)' in )?exchange '(?P<exchange>[^']*)' in vhost "
)
DEFAULT_EXCHANGE = "amq.default"
"""What the broker calls the exchange that has no name."""


def is_access_refused(why: str, address: Address) -> bool:
    """Whether the broker's words are about what goes to `address`: to that exchange, and with that key where they name one."""
    named = _named(why)
    return (
        named is not None
        and named[0] == address.exchange
        and named[1] in {None, address.routing_key}
    )


@lru_cache(
    maxsize=16
)  # one refusal is compared with thousands of addresses, while the loop stands still
def _named(why: str) -> tuple[str, str | None] | None:
    """The exchange that the broker names, and the key where it names one."""
    named = NAMED.search(why) if REFUSED in why else None
    if named is None:
        return None
    return ("" if named["exchange"] == DEFAULT_EXCHANGE else named["exchange"]), named["key"]


@dataclass(frozen=True, slots=True)
class ChannelClosure:
    """The end of a channel that publishes."""

    why: str
    written: Sequence[Address]
    """Where went what the broker may not have worked off, in the order in which it was written."""

    @property
    def suspects(self) -> list[int]:
        """Which of them may be the refused one; empty where it was none, or nobody can say. Alone it needs no name."""
        if REFUSED not in self.why:
            return []
        if len(self.written) == 1:
            return [0]
        return [
            number
            for number, address in enumerate(self.written)
            if is_access_refused(self.why, address)
        ]

    def fates(self) -> list[BusError]:
        """What became of each, as an error. What was surely not sent has no `maybe_executed`."""
        suspects = self.suspects
        if not suspects:
            return [self._in_doubt() for _ in self.written]
        refused, last = set(suspects), suspects[-1]
        return [
            self._fate(number, last, refused=number in refused)
            for number in range(len(self.written))
        ]

    def _fate(self, number: int, last: int, *, refused: bool) -> BusError:
        if refused:
            return PermissionDenied(
                f"{'not sent' if number == last else 'no confirm'}: {self.why}",
                maybe_executed=number < last,
            )
        return (
            ConnectionLost("not sent: the channel was closed")
            if number > last
            else self._in_doubt()
        )

    def _in_doubt(self) -> BusError:
        return ConnectionLost(f"no confirm: {self.why}", maybe_executed=True)
