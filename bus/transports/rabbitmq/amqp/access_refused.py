"""Outcomes of publishes on a channel that the broker closes because it refuses one of them.

The broker's error names the refused address, but not the message.
The broker processes a channel in the order of writing.
It has accepted the publishes before the refused one, and drops the publishes after it.
If several publishes match the named address, each of them may be the refused one.
A permission can be revoked between two publishes.
RabbitMQ notices that only when its cache no longer holds the permission for the first one.
So only the last matching publish, and those written after it, were certainly not sent.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from bus.errors import BusError, ConnectionLost, PermissionDenied
from bus.messaging.topology.addresses import Address

__all__ = ["REFUSED", "ChannelClosure", "is_access_refused"]

REFUSED = "ACCESS_REFUSED"
"""Name of the broker's error for a publish that the user has no permission for."""
# RabbitMQ 3.10 sends: access to topic 'key' in exchange 'name' in vhost '/' refused for user
# 'name'. Later versions also name the kind of access.
ADDRESS_PATTERN = re.compile(
    r"access to (?:topic '(?P<key>[^']*)' in )?exchange '(?P<exchange>[^']*)' in vhost "
)
DEFAULT_EXCHANGE = "amq.default"
"""The broker's name for the exchange with the empty name."""


def is_access_refused(why: str, address: Address) -> bool:
    """Return True if the broker's error `why` refuses publishes to `address`.

    The exchange must match, and also the routing key if the error names one.
    """
    refused = _parse_refused_address(why)
    return (
        refused is not None
        and refused[0] == address.exchange
        and refused[1] in {None, address.routing_key}
    )


# One error is compared with thousands of addresses, which blocks the event loop.
@lru_cache(maxsize=16)
def _parse_refused_address(why: str) -> tuple[str, str | None] | None:
    """Return the exchange and, if named, the routing key of a refusal; None for other errors."""
    match = ADDRESS_PATTERN.search(why) if REFUSED in why else None
    if match is None:
        return None
    return ("" if match["exchange"] == DEFAULT_EXCHANGE else match["exchange"]), match["key"]


@dataclass(frozen=True, slots=True)
class ChannelClosure:
    """The closure of a publishing channel, with the publishes that were in flight."""

    why: str
    written: Sequence[Address]
    """Addresses of publishes that the broker may not have processed, in the order of writing."""

    @property
    def suspects(self) -> list[int]:
        """Indexes in `written` of the publishes that may be the refused one.

        The list is empty if the closure is not a refusal, or if the error matches no address.
        A single publish is the refused one even if the error names no address.
        """
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
        """Return an error for each publish in `written`.

        An error without `maybe_executed` means that the message was certainly not sent.
        """
        suspects = self.suspects
        if not suspects:
            return [self._unknown_outcome() for _ in self.written]
        refused, last = set(suspects), suspects[-1]
        return [
            self._error_for(number, last, refused=number in refused)
            for number in range(len(self.written))
        ]

    def _error_for(self, number: int, last: int, *, refused: bool) -> BusError:
        if refused:
            return PermissionDenied(
                f"message {'not sent' if number == last else 'not confirmed'}: {self.why}",
                maybe_executed=number < last,
            )
        return (
            ConnectionLost("message not sent: the channel was closed")
            if number > last
            else self._unknown_outcome()
        )

    def _unknown_outcome(self) -> BusError:
        return ConnectionLost(f"message not confirmed: {self.why}", maybe_executed=True)
