"""Broken variants of the bus, which patch the process of a sender or worker at run time.

The code of `bus/` does not contain them.
The sender and the worker apply the variant that the environment names.
`make sabotage` sets it, and expects that the variant's test fails with the variant's text.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import pamqp.encode

import bus.messaging.topology.addresses
import bus.messaging.topology.declarations
import bus.messaging.topology.names
import bus.middleware.resend
import bus.runtime.bus
from bus.errors import ConnectionLost
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.handler import Handler, Middleware, compose
from bus.messaging.ports.inbox import HandledMessage, MessageKey
from bus.messaging.ports.transport import Accepted, Delivery, Nacked, PublishOutcome
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.model import Queue
from bus.transports.rabbitmq import RabbitMQTransport
from bus.transports.rabbitmq.amqp import properties
from bus.transports.rabbitmq.consumer import RabbitMQConsumer
from bus.transports.rabbitmq.fastlane import consumer_channel as consuming
from bus.transports.rabbitmq.fastlane.consumer_channel import ConsumerChannel, FastLaneDelivery

__all__ = ["SABOTAGES", "VARIABLE", "Sabotage", "sabotaged"]

VARIABLE = "CHAOS_SABOTAGE"
Patches = Callable[[], list[Any]]
FAULTS = "tests/chaos/test_faults.py::test_nothing_is_lost_and_nothing_unsent_is_done_under[{}]"


@dataclass(frozen=True, kw_only=True)
class Sabotage:
    """A broken variant."""

    what: str
    patches: Patches
    caught_by: str
    """Test that must fail."""
    words: str
    """Text that the failure must contain, so that another failure does not count."""


@contextmanager
def sabotaged(name: str | None) -> Iterator[None]:
    """Run the block with this variant, or unchanged with None."""
    with ExitStack() as stack:
        for each in SABOTAGES[name].patches() if name else []:
            stack.enter_context(each)
        yield


# --- Worker ---

WORK = {"jobs", "events"}
consume, send = RabbitMQTransport.consume, RabbitMQTransport.send


def ack_first() -> list[Any]:
    tasks: set[asyncio.Future[bool]] = set()

    async def consuming_ack_first(
        self: RabbitMQTransport, spec: ConsumerSpec, on_delivery: Any
    ) -> Any:
        def first_acked(delivery: Delivery) -> None:
            tasks.add(asyncio.ensure_future(delivery.ack()))
            on_delivery(delivery)

        return await consume(self, spec, first_acked if spec.queue.role in WORK else on_delivery)

    return [patch.object(RabbitMQTransport, "consume", consuming_ack_first)]


def auto_ack() -> list[Any]:
    async def consuming_unacked(
        self: RabbitMQTransport, spec: ConsumerSpec, on_delivery: Any
    ) -> Any:
        acks = spec.acks and spec.queue.role not in WORK
        return await consume(self, replace(spec, acks=acks), on_delivery)

    async def nothing(_: FastLaneDelivery, **_options: bool) -> bool:
        return True

    return [
        patch.object(RabbitMQTransport, "consume", consuming_unacked),
        patch.object(FastLaneDelivery, "ack", nothing),
        patch.object(FastLaneDelivery, "requeue", nothing),
    ]


class Forgetful:
    """An inbox that remembers nothing."""

    async def find(self, key: MessageKey) -> HandledMessage | None:
        """Find nothing."""
        return None

    async def add(self, key: MessageKey, handled: HandledMessage) -> None:
        """Remember nothing."""


def no_inbox() -> list[Any]:
    return [patch.object(bus.runtime.bus, "MemoryInbox", Forgetful)]


def cancel_ignored() -> list[Any]:
    return [patch.object(ConsumerChannel, "on_cancel", lambda self: None)]


def consumer_gone() -> list[Any]:
    step, begun = RabbitMQConsumer._step, set[int]()

    async def once(self: RabbitMQConsumer) -> None:
        if id(self) in begun:
            await asyncio.Event().wait()
        begun.add(id(self))
        await step(self)

    return [patch.object(RabbitMQConsumer, "_step", once)]


def headers_copied() -> list[Any]:
    read, table = properties.read_envelope, properties._encode_table

    def read_with(raw: bytes, body: bytes, **rest: Any) -> Envelope:
        envelope = read(raw, body, **rest)
        received = {
            name: value
            for name, value in properties._decode_with_pamqp(raw, body).headers.items()
            if name.startswith("x-")
        }
        return envelope.replace(headers={**envelope.headers, **received}) if received else envelope

    def table_with(envelope: Envelope) -> bytes:
        received = {
            name: value for name, value in envelope.headers.items() if name.startswith("x-")
        }
        extra = b"".join(
            properties._encode_short(name) + pamqp.encode.encode_table_value(value)
            for name, value in received.items()
        )
        return table(envelope) + extra

    return [
        patch.object(consuming, "read_envelope", read_with),
        patch.object(properties, "_encode_table", table_with),
    ]


# --- Topology ---


def without(function: str, argument: str) -> list[Any]:
    """Patch a function of the topology, so that its results lack one argument."""
    made = getattr(bus.messaging.topology.declarations, function)

    def lacking(*words: Any, **more: Any) -> Any:
        result = made(*words, **more)
        if isinstance(result, Queue):
            return replace(
                result,
                arguments={
                    name: value for name, value in result.arguments.items() if name != argument
                },
            )
        return {name: value for name, value in result.items() if name != argument}

    return [patch.object(bus.messaging.topology.declarations, function, lacking)]


def tiers_shared() -> list[Any]:
    names = {
        "retry_tier": lambda service, tier: f"shared.retry.{tier}",
        "retry_return_exchange": lambda service: "shared.return",
        "unroutable_queue": lambda service: "shared.unroutable.dead",
    }
    modules = (
        bus.messaging.topology.names,
        bus.messaging.topology.addresses,
        bus.messaging.topology.declarations,
    )
    return [
        patch.object(module, name, shared)
        for name, shared in names.items()
        for module in modules
        if hasattr(module, name)
    ]


# --- Sender ---


def addressed(**changes: Any) -> list[Any]:
    """Patch sends, so that each address has these changes."""

    async def sent(
        self: RabbitMQTransport, envelope: Envelope, address: Address, **rest: Any
    ) -> PublishOutcome:
        return await send(self, envelope, replace(address, **changes), **rest)

    return [patch.object(RabbitMQTransport, "send", sent)]


def nack_swallowed() -> list[Any]:
    async def sent(
        self: RabbitMQTransport, envelope: Envelope, address: Address, **rest: Any
    ) -> PublishOutcome:
        outcome = await send(self, envelope, address, **rest)
        return Accepted() if isinstance(outcome, Nacked) else outcome

    return [patch.object(RabbitMQTransport, "send", sent)]


def dropped_on_reconnect() -> list[Any]:
    async def sent(
        self: RabbitMQTransport, envelope: Envelope, address: Address, **rest: Any
    ) -> PublishOutcome:
        try:
            return await send(self, envelope, address, **rest)
        except ConnectionLost:
            return Accepted()

    return [patch.object(RabbitMQTransport, "send", sent)]


def no_resend() -> list[Any]:
    return [patch("bus.middleware.stacks.resend", lambda **_: lambda inner: inner)]


def new_id_on_resend() -> list[Any]:
    resend = bus.middleware.resend.resend

    def renewing(inner: Handler) -> Handler:
        tried: set[str] = set()

        async def call(envelope: Envelope) -> Envelope | None:
            again = envelope.id in tried
            tried.add(envelope.id)
            return await inner(envelope.replace(id=new_id()) if again else envelope)

        return call

    def both(**words: Any) -> Middleware:
        return lambda inner: compose([resend(**words), renewing], inner)

    return [patch("bus.middleware.stacks.resend", both)]


SABOTAGES = {
    "ack-first": Sabotage(
        what="a message is acked before its handler runs",
        patches=ack_first,
        caught_by=FAULTS.format("kill-worker"),
        words="lost",
    ),
    "auto-ack": Sabotage(
        what="the broker deletes a message when it delivers it",
        patches=auto_ack,
        caught_by=FAULTS.format("kill-worker"),
        words="lost",
    ),
    "no-confirms": Sabotage(
        what="a publish does not wait for its confirm",
        patches=lambda: addressed(confirmed=False),
        caught_by=FAULTS.format("full-queue"),
        words="lost",
    ),
    "mandatory-off": Sabotage(
        what="a message that no queue takes is not returned",
        patches=lambda: addressed(mandatory=False),
        caught_by=FAULTS.format("unbound"),
        words="lost",
    ),
    "no-resend": Sabotage(
        what="a message in flight is not sent again after its connection is lost",
        patches=no_resend,
        caught_by=FAULTS.format("swallowed-confirms"),
        words="unknown",
    ),
    "new-id-on-resend": Sabotage(
        what="a message that is sent again gets another id",
        patches=new_id_on_resend,
        caught_by=FAULTS.format("swallowed-confirms"),
        words="unexpected",
    ),
    "no-inbox": Sabotage(
        what="the receiver does not remember handled messages",
        patches=no_inbox,
        caught_by=FAULTS.format("swallowed-confirms"),
        words="duplicate effects",
    ),
    "drop-on-reconnect": Sabotage(
        what="a message in flight is dropped when its connection is lost, and reported as sent",
        patches=dropped_on_reconnect,
        caught_by=FAULTS.format("reset"),
        words="lost",
    ),
    "consumer-gone": Sabotage(
        what="a consumer is not started again after its connection is lost",
        patches=consumer_gone,
        caught_by=FAULTS.format("close-connections"),
        words="lost",
    ),
    "tiers-shared": Sabotage(
        what="the services share their retry tiers",
        patches=tiers_shared,
        caught_by=(
            "tests/chaos/test_neighbours.py::"
            "test_a_services_retries_come_back_on_time_while_anothers_queue_is[full]"
        ),
        words="late",
    ),
    "no-delivery-limit": Sabotage(
        what=(
            "dead-letter queues have no delivery limit, so 4.x deletes a dead letter after 21 reads"
        ),
        patches=lambda: without("_dead_queue", "x-delivery-limit"),
        caught_by="tests/chaos/test_retries.py::test_a_dead_letter_survives_being_looked_at",
        words="delivery limit",
    ),
    "headers-copied": Sabotage(
        what="a copy carries the broker's headers of its original",
        patches=headers_copied,
        caught_by=(
            "tests/chaos/test_retries.py::"
            "test_every_message_is_tried_exactly_as_often_as_its_policy_says"
        ),
        words="the broker's headers",
    ),
    "nack-swallowed": Sabotage(
        what="a publish that the broker refused is reported as sent",
        patches=nack_swallowed,
        caught_by=FAULTS.format("full-queue"),
        words="lost",
    ),
    "at-most-once-dead-lettering": Sabotage(
        what="dead-lettering inside the broker is not confirmed",
        patches=lambda: without("_dead_lettering", "x-dead-letter-strategy"),
        caught_by=FAULTS.format("dead-letter-target"),
        words="lost",
    ),
    "cancel-ignored": Sabotage(
        what="a consumer that the broker cancelled is not started again",
        patches=cancel_ignored,
        caught_by="tests/chaos/test_deleted.py::test_a_queue_that_was_deleted_is_served_again",
        words="not served",
    ),
}
