"""Outcomes of publishes on a channel that the broker closes because it refuses one of them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Channel

from bus.errors import BusError, ConnectionLost, PermissionDenied
from bus.messaging.topology.addresses import Address
from bus.transports.rabbitmq.amqp.access_refused import ChannelClosure, is_access_refused
from bus.transports.rabbitmq.fastlane.unconfirmed_channel import UnconfirmedChannel
from tests.unit.transports.rabbitmq.fakes import connected
from tests.unit.transports.rabbitmq.fastlane.test_confirm_channel import Broker, message, turns
from tests.unit.transports.rabbitmq.streams import method

GOOD, BAD = (
    Address(exchange="bus.jobs", routing_key="shelf.sort.v1"),
    Address(exchange="bus.jobs", routing_key="shelf.burn.v1"),
)
ELSEWHERE = Address(exchange="bus.events", routing_key="shelf.burn.v1")
TOPIC = (
    "ACCESS_REFUSED - access to topic 'shelf.burn.v1' in exchange 'bus.jobs' in vhost '/' refused "
    "for user 'desk'"
)
EXCHANGE = "ACCESS_REFUSED - access to exchange 'bus.jobs' in vhost '/' refused for user 'desk'"
NEWER = "ACCESS_REFUSED - write access to exchange 'bus.jobs' in vhost '/' refused for user 'desk'"
DEFAULT = "ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'desk'"
UNKNOWN, GONE = "ACCESS_REFUSED - no", "NOT_FOUND - no exchange 'bus.jobs' in vhost '/'"

NAMES: dict[str, tuple[str, Address, bool]] = {
    "its key": (TOPIC, BAD, True),
    "another key": (TOPIC, GOOD, False),
    "the key in another exchange": (TOPIC, ELSEWHERE, False),
    "its exchange": (EXCHANGE, GOOD, True),
    "its exchange, as newer brokers say it": (NEWER, GOOD, True),
    "another exchange": (EXCHANGE, ELSEWHERE, False),
    "the exchange without a name": (DEFAULT, Address(exchange="", routing_key="q"), True),
    "words that nobody knows": (UNKNOWN, BAD, False),
    "another reason": (GONE, BAD, False),
}


@pytest.mark.parametrize("case", NAMES)
def test_the_brokers_words_are_about(case: str) -> None:
    why, address, meant = NAMES[case]
    assert is_access_refused(why, address) is meant


BEFORE, REFUSED, BEHIND = (ConnectionLost, True), (PermissionDenied, False), (ConnectionLost, False)
SUSPECT = (PermissionDenied, True)
"""The permission may have been revoked after this publish."""
FATES: dict[str, tuple[str, list[Address], list[tuple[type[BusError], bool]]]] = {
    "one in the middle": (TOPIC, [GOOD, BAD, GOOD], [BEFORE, REFUSED, BEHIND]),
    "several": (
        TOPIC,
        [GOOD, BAD, GOOD, BAD, ELSEWHERE],
        [BEFORE, SUSPECT, BEFORE, REFUSED, BEHIND],
    ),
    "a whole exchange": (
        EXCHANGE,
        [ELSEWHERE, GOOD, BAD, ELSEWHERE],
        [BEFORE, SUSPECT, REFUSED, BEHIND],
    ),
    "none that is known": (TOPIC, [GOOD, ELSEWHERE], [BEFORE, BEFORE]),
    "one alone, whatever the words": (UNKNOWN, [GOOD], [REFUSED]),
    "several, and unknown words": (UNKNOWN, [GOOD, BAD], [BEFORE, BEFORE]),
    "another reason": (GONE, [GOOD], [BEFORE]),
    "nothing": (TOPIC, [], []),
}


@pytest.mark.parametrize("case", FATES)
def test_what_was_refused_what_was_dropped_and_what_may_have_arrived(case: str) -> None:
    why, written, fates = FATES[case]
    assert [
        (type(error), error.maybe_executed) for error in ChannelClosure(why, written).fates()
    ] == fates


async def fate(task: "asyncio.Task[Any]") -> tuple[type[BaseException], bool]:
    with pytest.raises(BusError) as error:
        await task
    return error.type, error.value.maybe_executed


async def test_on_a_confirmed_channel_each_hears_of_its_own() -> None:
    broker = Broker()
    tasks = [
        await broker.publish(str(number), address)
        for number, address in enumerate((GOOD, BAD, ELSEWHERE))
    ]
    broker.say(Channel.Close(403, TOPIC, 60, 40))
    assert [await fate(task) for task in tasks] == [BEFORE, REFUSED, BEHIND]


class Asking:
    """The broker's side of a channel without confirms."""

    def __init__(self) -> None:
        self.lane, _ = connected()
        self.failed: list[tuple[str, type[BusError], bool]] = []
        self.channel = UnconfirmedChannel(
            self.lane, 1, on_returned=lambda *_: None, on_failed=self._note
        )

    def _note(self, message_id: str, error: BusError) -> None:
        self.failed.append((message_id, type(error), error.maybe_executed))

    async def ask(self, *addresses: Address) -> None:
        for number, address in enumerate(addresses):
            await self.channel.publish(
                message(str(number)), address, asyncio.get_running_loop().time() + 60
            )


async def test_on_a_channel_without_confirms_what_was_written_before_waits_for_its_answer() -> None:
    broker = Asking()
    await broker.ask(GOOD, BAD, GOOD)
    broker.lane.data_received(method(1, Channel.Close(403, TOPIC, 60, 40)))
    assert broker.failed == [("1", *REFUSED), ("2", *BEHIND)]
    assert not broker.channel.alive


async def test_nobody_waits_for_answers_that_may_never_come() -> None:
    """The reason of the closure names no message, so the outcome of all of them is unknown."""
    broker = Asking()
    await broker.ask(GOOD, BAD)
    broker.lane.data_received(method(1, Channel.Close(404, GONE, 60, 40)))
    assert broker.failed == [("0", *BEFORE), ("1", *BEFORE)]


LOSSES: dict[str, Callable[[Asking], None]] = {
    "the connection is lost": lambda broker: broker.lane.connection_lost(None),
    "it is closed here": lambda broker: broker.channel.release(),
}


@pytest.mark.parametrize("case", LOSSES)
async def test_what_ends_otherwise_is_told_by_others(case: str) -> None:
    broker = Asking()
    await broker.ask(GOOD)
    LOSSES[case](broker)
    await turns()
    assert broker.failed == []
