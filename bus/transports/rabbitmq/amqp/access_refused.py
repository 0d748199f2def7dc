"""The outcomes of publishes on a channel that the broker closed because of one of them.

The reason is ACCESS_REFUSED, or a body that is larger than the broker's `max_message_size`.

If the user may not publish to an address, the broker closes the channel.
The broker's error names the refused address, but not the message.
The broker processes the publishes of a channel in the order in which they were written.
It accepts the publishes before the refused publish, and drops the publishes after it.
If several publishes have the refused address, each of them may be the refused publish.
The reason is that a permission can be revoked between two publishes, and that RabbitMQ caches
permissions. Only the last publish with the refused address, and the publishes after it, were
certainly not sent.

If a body is too large, the broker's error names its size. The first publish of this size was
refused, because the broker closes the channel at the first body that is too large.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from bus.errors import BusError, ConnectionLost, PermissionDenied
from bus.messaging.topology.addresses import Address
from bus.transports.rabbitmq.amqp.oversized_publish import parse_too_large, too_large_for_broker

__all__ = ["REFUSED", "ChannelClosure", "is_access_refused"]

REFUSED = "ACCESS_REFUSED"
"""Name of the error that the broker sends if the user may not publish to an address."""
# RabbitMQ 3.10 sends: access to topic 'key' in exchange 'name' in vhost '/' refused for user
# 'name'. The texts of later versions also name the kind of access.
ADDRESS_PATTERN = re.compile(
    r"access to (?:topic '(?P<key>[^']*)' in )?exchange '(?P<exchange>[^']*)' in vhost "
)
DEFAULT_EXCHANGE = "amq.default"
"""The broker's name for the exchange with the empty name."""


def is_access_refused(why: str, address: Address) -> bool:
    """Return True if the broker's error text `why` reports that a publish to `address` was refused.

    The exchange must match. If the error names a routing key, the routing key must match too.
    """
    refused = _parse_refused_address(why)
    return (
        refused is not None
        and refused[0] == address.exchange
        and refused[1] in {None, address.routing_key}
    )


# One error may be compared with thousands of addresses. Without the cache, the repeated parsing of
# the error would block the event loop.
@lru_cache(maxsize=16)
def _parse_refused_address(why: str) -> tuple[str, str | None] | None:
    """Return the exchange and the routing key that the error text names.

    The routing key is None if the text does not name it. The result is None if the text is not
    ACCESS_REFUSED for an exchange.
    """
    match = ADDRESS_PATTERN.search(why) if REFUSED in why else None
    if match is None:
        return None
    return ("" if match["exchange"] == DEFAULT_EXCHANGE else match["exchange"]), match["key"]


@dataclass(frozen=True, slots=True)
class ChannelClosure:
    """The reason why a publisher channel was closed, and its publishes without a known outcome."""

    why: str
    written: Sequence[Address]
    """Addresses of the publishes with an unknown outcome, in the order of writing."""
    sizes: Sequence[int] = ()
    """Bytes of their bodies, in the same order."""

    @property
    def suspects(self) -> list[int]:
        """Indexes of the publishes in `written` that the broker may have refused.

        The list is empty if the broker closed the channel for another reason.
        If a body is too large, the list has only the publish of this body.
        If `written` has only one publish, that publish was refused, even if the error names another
        address. If `written` has several publishes, the list has each publish to the address in the
        error.
        """
        if (too_large := parse_too_large(self.why)) is not None:
            return [self.sizes.index(too_large[0])] if too_large[0] in self.sizes else []
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

        If an error has `maybe_executed=False`, the message was certainly not sent.
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
        if refused and (too_large := parse_too_large(self.why)) is not None:
            return too_large_for_broker(*too_large)
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
