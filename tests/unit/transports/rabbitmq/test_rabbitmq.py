import asyncio
import errno
import logging
import struct
from typing import Any, Self, cast

import pamqp.frame
import pytest
from aiormq.channel import Channel
from aiormq.connection import FrameReceiver
from aiormq.exceptions import (
    AMQPConnectionError,
    AMQPError,
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionNotAllowed,
    DeliveryError,
    InvalidFrameError,
    ProbableAuthenticationError,
    PublishError,
)
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat
from typing_extensions import override

from bus.errors import (
    BusError,
    ConfigurationError,
    ConnectionLost,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    TopologyMismatch,
    Unauthenticated,
    Unavailable,
)
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import Accepted, Delivery, Nacked, Returned
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.model import Queue, Topology
from bus.transports.rabbitmq.aiormq_channels import (
    AiormqConsumerChannel,
    AiormqDelivery,
    AiormqPublisherChannel,
)
from bus.transports.rabbitmq.connection import SupervisedConnection
from bus.transports.rabbitmq.consumer import RabbitMQConsumer
from bus.transports.rabbitmq.consumer_timeout import supports_consumer_timeout
from bus.transports.rabbitmq.exceptions import map_errors, to_bus_error
from bus.transports.rabbitmq.fastlane.confirm_channel import ConfirmChannel
from bus.transports.rabbitmq.fastlane.confirm_watchdog import (
    NEW_CHANNEL_SILENT_SECONDS,
    SILENT_SECONDS,
)
from bus.transports.rabbitmq.lenient_reader import LenientReader
from bus.transports.rabbitmq.log_filter import redact_library_logs
from bus.transports.rabbitmq.publisher import Publisher
from bus.transports.wire_format import AmqpMessage
from tests.unit.fakes import settle_down, virtual
from tests.unit.transports.rabbitmq.fakes import connected

SECRET = "Eleonora Quist"
ADDRESS = Address(exchange="bus.events", routing_key="ledger.closed.v1")
WORK = Queue(name="q", role="jobs")
SPEC = ConsumerSpec(queue=WORK, topology=Topology(), prefetch=1)


def message(message_id: str = "m-1", body: bytes = b"{}") -> Envelope:
    return Envelope(
        id=message_id, type="ledger.closed.v1", role="event", source="ledger", body=body
    )


class Message:
    """A fake of aiormq's delivered message, with the fields that the code reads."""

    delivery_tag = 1
    redelivered = False
    body = SECRET.encode()
    delivery = Basic.Return(reply_text="NO_ROUTE")

    @override
    def __repr__(self) -> str:
        return f"Message(body={self.body!r})"


class FakeChannel:
    """A fake channel on which each publish waits for the outcome that the test sets."""

    connection: object = None
    max_content_size = 131_064

    def __init__(self) -> None:
        self._closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.observers = 0
        self.confirms: list[asyncio.Future[None]] = []
        self.settling = asyncio.Event()
        self.settling.set()
        self.cancelled: list[str] = []
        self.consumers: list[str] = []
        self.arguments: list[Any] = []
        self.acked: list[int] = []
        self.on_consumer_cancel_callbacks: set[Any] = set()

    @property
    def closing(self) -> "asyncio.Future[None]":
        """The future of the close; aiormq creates one at each read, and keeps it until the end."""
        self.observers += 1
        return self._closing

    @property
    def is_closed(self) -> bool:
        return self._closing.done()

    async def basic_publish(self, body: bytes, *, timeout: float, **_: Any) -> None:
        if self.is_closed:
            raise ChannelInvalidStateError("closed")
        self.confirms.append(asyncio.get_running_loop().create_future())
        async with asyncio.timeout(timeout):
            await self.confirms[-1]

    async def basic_ack(self, tag: int, *, wait: bool) -> None:
        await self.settling.wait()
        self.acked.append(tag)

    async def basic_qos(self, **_: Any) -> None: ...

    async def basic_consume(self, *_: Any, consumer_tag: str, arguments: Any, **__: Any) -> None:
        self.consumers.append(consumer_tag)
        self.arguments.append(arguments)

    async def basic_cancel(self, tag: str, **_: Any) -> None:
        self.cancelled.append(tag)

    async def close(self, **_: Any) -> None:
        if not self.is_closed:
            self._closing.set_result(None)


class FakeConnection:
    name = "link"
    last_error: str | None = None
    heeds = False
    blocked = False

    def __init__(self) -> None:
        self.up = asyncio.Event()
        self.up.set()
        self.channels: list[FakeChannel] = []
        self.declaring = asyncio.Event()
        self.declaring.set()

    async def accepts_publishes(self) -> bool:
        return self.up.is_set() and not self.blocked

    async def wait_unblocked(self) -> None:
        await self.up.wait()

    def supports_consumer_timeout(self, queue: Queue) -> bool:
        return self.heeds

    def broker_name_of(self, queue: str) -> str:
        return queue

    async def declare(self, topology: Topology) -> None:
        await self.declaring.wait()

    async def channel(self, *, confirms: bool) -> Channel:
        self.channels.append(FakeChannel())
        return cast("Channel", self.channels[-1])


class Publishing:
    """An open publisher, and its fake channel."""

    def __init__(self, *, window: int = 10) -> None:
        self.link = FakeConnection()
        link = cast("SupervisedConnection", self.link)
        self.publisher = Publisher(
            link,
            confirms=True,
            channel_factory=lambda channel: AiormqPublisherChannel(link, channel, window=window),
        )

    async def __aenter__(self) -> Self:
        self.publisher.start()
        await settle_down()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.publisher.close()

    @property
    def channel(self) -> FakeChannel:
        return self.link.channels[-1]

    def publish(self, message_id: str = "m-1", *, timeout: float = 10) -> "asyncio.Task[Any]":
        return asyncio.create_task(
            self.publisher.publish(message(message_id), ADDRESS, timeout=timeout)
        )


class LanePublishing(Publishing):
    """An open publisher on the fast lane, and the channels that it opened."""

    def __init__(self) -> None:
        super().__init__()
        self.lane, self.opened = connected()[0], list[ConfirmChannel]()
        self.publisher = Publisher(
            cast("SupervisedConnection", self.link), confirms=True, channel_factory=self._open
        )

    def _open(self, _: Channel) -> ConfirmChannel:
        self.opened.append(ConfirmChannel(self.lane, 1, window=10))
        return self.opened[-1]


# --- Publishing ---


@pytest.mark.parametrize(
    ("broker", "outcome"),
    [
        (None, Accepted()),
        (
            PublishError(cast("Any", Message()), Basic.Return(reply_text="NO_ROUTE")),
            Returned(reason="NO_ROUTE"),
        ),
        (DeliveryError(None, Basic.Nack()), Nacked(reason="basic.nack")),
    ],
)
def test_what_the_broker_says_is_the_outcome(broker: Exception | None, outcome: object) -> None:
    @virtual
    async def run() -> None:
        async with Publishing() as here:
            publishing = here.publish()
            await settle_down()
            if broker is None:
                here.channel.confirms[0].set_result(None)
            else:
                here.channel.confirms[0].set_exception(broker)
            assert await publishing == outcome

    run()


@pytest.mark.parametrize(
    "broker",
    [AMQPConnectionError("gone"), Exception(), asyncio.CancelledError(), RuntimeError("closed")],
    ids=lambda e: type(e).__name__,
)
def test_a_connection_that_goes_before_the_confirm_leaves_the_outcome_open(
    broker: BaseException,
) -> None:
    @virtual
    async def run() -> None:
        async with Publishing() as here:
            publishing = here.publish()
            await settle_down()
            here.channel.confirms[0].set_exception(broker)
            with pytest.raises(ConnectionLost) as caught:
                await publishing
            assert caught.value.maybe_executed

    run()


@virtual
async def test_a_channel_on_which_all_is_nacked_is_given_up_for_another() -> None:
    """Check that the channel is replaced: it may not know the queue's new leader."""
    async with Publishing() as here:
        first, publishing = here.channel, here.publish()
        await settle_down()
        while not first.is_closed:
            first.confirms[-1].set_exception(DeliveryError(None, Basic.Nack()))
            assert await publishing == Nacked(reason="basic.nack")
            assert len(first.confirms) < 20
            await asyncio.sleep(0.2)
            publishing = here.publish()
            await settle_down()
        assert 5 <= len(first.confirms) <= 12
        await settle_down()
        assert len(here.link.channels) == 2
        here.channel.confirms[-1].set_result(None)
        assert await publishing == Accepted()


@virtual
async def test_a_channel_on_which_something_is_taken_stays() -> None:
    async with Publishing() as here:
        for number in range(100):
            publishing = here.publish()
            await settle_down()
            if number % 10:
                here.channel.confirms[-1].set_exception(DeliveryError(None, Basic.Nack()))
            else:
                here.channel.confirms[-1].set_result(None)
            await publishing
            await asyncio.sleep(0.1)
        assert len(here.link.channels) == 1


@virtual
async def test_a_channel_that_lives_for_days_is_watched_by_one_observer() -> None:
    async with Publishing() as here:
        await asyncio.sleep(1000)
        assert here.channel.observers == 1


@virtual
async def test_a_queue_that_does_not_answer_keeps_nothing_from_going_to_others() -> None:
    """Check that a quorum queue without a majority does not block publishes to other queues.

    That queue neither confirms nor nacks, and each publish to it keeps its slot in the window.
    """
    async with LanePublishing() as here:
        silent = await asyncio.gather(
            *(here.publish(str(number), timeout=2) for number in range(20)), return_exceptions=True
        )
        assert all(isinstance(error, Unavailable | DeadlineExceeded) for error in silent)
        elsewhere = Address(exchange="bus.jobs", routing_key="other")
        other = asyncio.create_task(here.publisher.publish(message(), elsewhere, timeout=10))
        await asyncio.sleep(3)
        here.opened[-1].on_confirm(1, multiple=False, ok=True)
        assert await other == Accepted()
        assert len(here.opened) == 2


@virtual
async def test_a_channel_that_an_alarm_blocks_stays_open_also_if_its_confirms_come_late() -> None:
    async with LanePublishing() as here:
        burst = asyncio.gather(
            *(here.publish(str(number), timeout=2) for number in range(10)), return_exceptions=True
        )
        await settle_down()
        here.lane.unblocked.clear()
        assert all(isinstance(error, DeadlineExceeded) for error in await burst)
        await asyncio.sleep(60)
        here.lane.unblocked.set()
        await asyncio.sleep(1)
        here.opened[0].on_confirm(10, multiple=True, ok=True)
        await asyncio.sleep(60)
        assert len(here.opened) == 1


@virtual
async def test_a_channel_whose_confirms_are_only_waited_for_stays() -> None:
    async with Publishing(window=4) as here:
        first = here.publish()
        await settle_down()
        here.channel.confirms[0].set_result(None)
        assert await first == Accepted()
        waiting = [here.publish(str(number), timeout=60) for number in range(4)]
        await asyncio.sleep(SILENT_SECONDS - 2)
        assert len(here.link.channels) == 1
        for confirm in here.channel.confirms[1:]:
            confirm.set_result(None)
        assert await asyncio.gather(*waiting) == [Accepted()] * 4


@virtual
async def test_a_new_channel_without_a_confirm_is_replaced_and_a_caller_can_try_again() -> None:
    """Check a channel that was opened while the node of the queue's leader hung.

    The channel waits for that node for a longer time than the queue has no leader.
    """
    async with LanePublishing() as here:
        with pytest.raises(ConnectionLost) as caught:
            await here.publish(timeout=2 * NEW_CHANNEL_SILENT_SECONDS)
        assert caught.value.maybe_executed
        again = here.publish(timeout=60)
        await asyncio.sleep(2)
        here.opened[-1].on_confirm(1, multiple=False, ok=True)
        assert await again == Accepted()
        assert len(here.opened) == 2


@virtual
async def test_a_channel_is_not_given_up_for_its_silence_in_an_alarm() -> None:
    async with Publishing() as here:
        waiting = here.publish(timeout=200)
        await settle_down()
        here.link.blocked = True
        await asyncio.sleep(100)
        here.link.blocked = False
        await asyncio.sleep(2)
        here.channel.confirms[0].set_result(None)
        assert await waiting == Accepted()
        assert len(here.link.channels) == 1


@virtual
async def test_a_cancelled_publish_gives_its_place_and_its_id_back() -> None:
    async with Publishing(window=1) as here:
        publishing = here.publish()
        await settle_down()
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        again = here.publish()
        await settle_down()
        here.channel.confirms[-1].set_result(None)
        assert await again == Accepted()


@virtual
async def test_one_id_is_never_in_flight_twice() -> None:
    async with Publishing() as here:
        first, second, other = here.publish(), here.publish(), here.publish("m-2")
        await settle_down()
        assert len(here.channel.confirms) == 2
        here.channel.confirms[0].set_result(None)
        await settle_down()
        assert len(here.channel.confirms) == 3
        for confirm in here.channel.confirms[1:]:
            confirm.set_result(None)
        assert [await first, await second, await other] == [Accepted()] * 3


@virtual
async def test_a_message_whose_copy_is_in_flight_is_not_blamed_on_the_broker() -> None:
    async with Publishing() as here:
        first = here.publish(timeout=10)
        await settle_down()
        with pytest.raises(Unavailable, match="a copy with the same message id still waits"):
            await here.publish(timeout=2)
        here.channel.confirms[0].set_result(None)
        assert await first == Accepted()
        here.link.up.clear()
        with pytest.raises(Unavailable, match="accepts no publishes now"):
            await here.publish(timeout=2)


@virtual
async def test_one_deadline_bounds_the_place_the_channel_and_the_confirm() -> None:
    async with Publishing(window=1) as here:
        first = here.publish(timeout=9)
        await settle_down()
        second = asyncio.create_task(here.publisher.publish(message("m-2"), ADDRESS, timeout=10))
        with pytest.raises(DeadlineExceeded, match="did not confirm the message") as caught:
            await first
        assert caught.value.maybe_executed
        here.link.up.clear()
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await second
        assert asyncio.get_running_loop().time() == pytest.approx(10, abs=0.1)


@virtual
async def test_a_full_window_is_not_sent() -> None:
    async with Publishing(window=1) as here:
        first = here.publish(timeout=10)
        await settle_down()
        with pytest.raises(Unavailable, match="too many publishes wait for a confirm") as caught:
            await here.publish("m-2", timeout=2)
        assert not caught.value.maybe_executed
        here.channel.confirms[0].set_result(None)
        await first


@virtual
async def test_a_publish_waits_for_the_next_channel() -> None:
    async with Publishing() as here:
        here.channel.closing.set_result(None)
        publishing = here.publish()
        await asyncio.sleep(2)
        assert len(here.link.channels) == 2
        here.channel.confirms[0].set_result(None)
        assert await publishing == Accepted()


@virtual
async def test_where_the_broker_sets_no_limit_to_frames_headers_may_be_long() -> None:
    async with Publishing() as here:
        here.channel.max_content_size = -8  # aiormq computes this value from a limit of 0
        publishing = asyncio.create_task(
            here.publisher.publish(
                message().replace(headers={"mine": "x" * 140_000}), ADDRESS, timeout=1
            )
        )
        await settle_down()
        here.channel.confirms[0].set_result(None)
        assert await publishing == Accepted()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"id": "x" * 256}, "k"),
        ({"headers": {"mine": "x" * 140_000}}, "k"),
        ({"headers": {"mine": 2**63}}, "k"),
        ({}, "ü" * 128),
    ],
    ids=["a long id", "long headers", "a large number", "a long key"],
)
def test_what_amqp_cannot_say_is_refused_before_it_costs_the_connection(
    change: dict[str, Any], key: str
) -> None:
    @virtual
    async def run() -> None:
        async with Publishing() as here:
            with pytest.raises(InvalidArgument):
                await here.publisher.publish(
                    message().replace(**change),
                    Address(exchange="bus.events", routing_key=key),
                    timeout=1,
                )
            assert here.channel.confirms == []

    run()


@virtual
async def test_after_a_refusal_only_the_newest_publish_there_was_surely_not_sent() -> None:
    """Check all publishes to one address after a refusal.

    The right may have been revoked after the earlier publishes. aiormq reports the refusal to the
    publishes in any order.
    """
    words = (
        f"ACCESS_REFUSED - access to topic '{ADDRESS.routing_key}' in exchange"
        f" '{ADDRESS.exchange}' in vhost '/' refused for user 'u'"
    )
    async with Publishing() as here:
        publishing = [here.publish(message_id) for message_id in ("m-1", "m-2", "m-3")]
        await settle_down()
        for confirm in reversed(here.channel.confirms):
            confirm.set_exception(ChannelAccessRefused(403, words))
        errors = await asyncio.gather(*publishing, return_exceptions=True)
    told = [(type(error), isinstance(error, BusError) and error.maybe_executed) for error in errors]
    assert told == [(PermissionDenied, True), (PermissionDenied, True), (PermissionDenied, False)]


# --- Consuming ---


def consumer(link: FakeConnection) -> RabbitMQConsumer:
    return RabbitMQConsumer(
        cast("SupervisedConnection", link),
        SPEC,
        confirms=False,
        channel_factory=consuming,
    )


def consuming(channel: Channel) -> AiormqConsumerChannel:
    return AiormqConsumerChannel(channel, spec=SPEC, on_delivery=lambda _: None, clock=lambda: 0.0)


@virtual
async def test_a_consumer_is_ready_again_after_its_channel_was_lost() -> None:
    link = FakeConnection()
    mine = consumer(link)
    mine.start()
    await mine.wait_ready()
    link.channels[0].closing.set_result(None)
    waiting = [asyncio.create_task(mine.wait_ready()) for _ in range(3)]
    assert not any(each.done() for each in waiting)
    await asyncio.gather(*waiting)
    assert len(link.channels) == 2
    await mine.close()


@virtual
async def test_a_consumer_that_is_cancelled_while_it_begins_does_not_consume() -> None:
    link = FakeConnection()
    link.declaring.clear()
    mine = consumer(link)
    mine.start()
    await settle_down()
    await mine.cancel()
    link.declaring.set()
    await asyncio.sleep(10)
    assert not mine.ready
    assert [channel.is_closed for channel in link.channels] == [True]
    await mine.close()


@virtual
async def test_a_cancelled_consumer_keeps_its_channel_for_acks() -> None:
    link = FakeConnection()
    mine = consumer(link)
    mine.start()
    await mine.wait_ready()
    await mine.cancel()
    assert len(link.channels[0].cancelled) == 1
    await asyncio.sleep(10)
    assert not link.channels[0].is_closed
    await mine.close()
    assert link.channels[0].is_closed


@pytest.mark.parametrize(
    ("patience", "heeds", "said"),
    [(90.5, True, 90_500), (None, True, None), (90.5, False, None), (1e12, True, 31_536_000_000)],
)
def test_a_consumer_says_how_long_it_may_hold_a_delivery_where_the_broker_listens(
    patience: float | None, heeds: bool, said: int | None
) -> None:
    @virtual
    async def run() -> None:
        link = FakeConnection()
        link.heeds = heeds
        mine = RabbitMQConsumer(
            cast("SupervisedConnection", link),
            ConsumerSpec(queue=WORK, topology=Topology(), prefetch=1, consumer_timeout=patience),
            confirms=False,
            channel_factory=consuming,
        )
        mine.start()
        await mine.wait_ready()
        assert [each.get("x-consumer-timeout") for each in link.channels[0].arguments] == [said]
        await mine.close()

    run()


@pytest.mark.parametrize(
    ("product", "version", "queue_type", "heeds"),
    [
        ("RabbitMQ", "4.3.6", "quorum", True),
        ("RabbitMQ", "4.10.0-rc.1", "quorum", True),
        ("RabbitMQ", "5.0.0", "quorum", True),
        ("RabbitMQ", "4.3.6", "classic", False),
        ("RabbitMQ", "4.3.6", None, False),
        ("RabbitMQ", "4.2.9", "quorum", False),
        ("RabbitMQ", "3.10.8", "quorum", False),
        ("RabbitMQ", "", "quorum", False),
        ("LavinMQ", "9.9.9", "quorum", False),
    ],
)
def test_which_brokers_listen_to_how_long_a_delivery_may_be_held(
    product: str, version: str, queue_type: str | None, heeds: bool
) -> None:
    assert supports_consumer_timeout({"product": product, "version": version}, queue_type) is heeds


class Cancelled:
    """A consumer that the broker cancelled with two unsettled deliveries. It is ready again."""

    def __init__(self) -> None:
        self.link, self.deliveries = FakeConnection(), list[Delivery]()
        self.sessions: list[AiormqConsumerChannel] = []
        self.consumer = RabbitMQConsumer(
            cast("SupervisedConnection", self.link),
            ConsumerSpec(queue=WORK, topology=Topology(), prefetch=2),
            confirms=False,
            channel_factory=self._opened,
        )

    def _opened(self, channel: Channel) -> AiormqConsumerChannel:
        session = AiormqConsumerChannel(
            channel,
            spec=SPEC,
            on_delivery=self.deliveries.append,
            clock=lambda: 0.0,
        )
        self.sessions.append(session)
        return session

    async def __aenter__(self) -> Self:
        self.consumer.start()
        await self.consumer.wait_ready()
        for tag in (1, 2):
            self.sessions[0].deliver(tag, lambda: AmqpMessage(body=b"{}"), redelivered=False)
        for callback in self.link.channels[0].on_consumer_cancel_callbacks:
            callback(None)
        await self.consumer.wait_ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.consumer.close()
        assert all(channel.is_closed for channel in self.link.channels)


@virtual
async def test_a_channel_stays_after_the_brokers_cancel_until_its_last_delivery_is_settled() -> (
    None
):
    async with Cancelled() as here:
        before, after = here.link.channels
        assert before.cancelled == before.consumers
        assert await here.deliveries[0].ack() is False
        await asyncio.sleep(10)
        assert (before.acked, before.is_closed) == ([1], False)
        assert await here.deliveries[1].ack() is False
        await asyncio.sleep(10)
        assert (before.acked, before.is_closed, after.is_closed) == ([1, 2], True, False)


@virtual
async def test_a_consumer_that_is_closed_closes_the_channels_of_before_as_well() -> None:
    async with Cancelled() as here:
        await here.consumer.cancel()
        assert not here.link.channels[0].is_closed
    assert not await here.deliveries[0].ack()
    assert here.link.channels[0].acked == []


@virtual
async def test_a_channel_of_before_that_the_broker_closes_is_let_go() -> None:
    async with Cancelled() as here:
        here.link.channels[0].closing.set_result(None)
        await settle_down()
        assert not await here.deliveries[0].ack()
        assert here.consumer.ready
    assert len(here.link.channels) == 2


@virtual
async def test_of_a_handler_that_never_ends_at_most_one_channel_of_before_is_kept() -> None:
    """Check that a draining channel is closed when the next channel is cancelled as well.

    Its deliveries are older than the one that timed out, so the broker has already requeued them.
    """
    async with Cancelled() as here:
        for _ in range(3):
            here.sessions[-1].deliver(1, lambda: AmqpMessage(body=b"{}"), redelivered=True)
            for callback in here.link.channels[-1].on_consumer_cancel_callbacks:
                callback(None)
            await here.consumer.wait_ready()
            await settle_down()
        assert [channel.is_closed for channel in here.link.channels] == [
            True,
            True,
            True,
            False,
            False,
        ]


def delivery(channel: FakeChannel) -> tuple[AiormqDelivery, AiormqConsumerChannel]:
    session = consuming(cast("Channel", channel))
    return AiormqDelivery(session, 1, lambda: AmqpMessage(body=b"{}"), redelivered=False), session


@virtual
async def test_an_ack_that_nobody_takes_ends() -> None:
    channel = FakeChannel()
    channel.settling.clear()
    mine, _ = delivery(channel)
    assert await mine.ack() is False


@virtual
async def test_a_delivery_of_a_session_that_ended_is_never_acked() -> None:
    mine, session = delivery(FakeChannel())
    session.release()
    assert await mine.ack() is False
    assert not mine.channel.alive


@virtual
async def test_an_ack_twice_is_once() -> None:
    mine, _ = delivery(FakeChannel())
    assert await mine.ack()
    assert await mine.ack()


# --- Errors ---


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (ProbableAuthenticationError("ACCESS_REFUSED"), Unauthenticated),
        (ConnectionNotAllowed("NOT_ALLOWED"), ConfigurationError),
        (InvalidFrameError("Expected OpenOk, got Close"), ConfigurationError),
        (ChannelPreconditionFailed("PRECONDITION_FAILED"), TopologyMismatch),
        (ChannelAccessRefused("ACCESS_REFUSED"), PermissionDenied),
        (ChannelNotFoundEntity("NOT_FOUND"), FailedPrecondition),
        (ConnectionRefusedError(111, "Connection refused"), Unavailable),
        (AMQPError("any"), Unavailable),
        (TimeoutError(), Unavailable),
        (ValueError(SECRET), Unavailable),
        (NotImplementedError(), Unavailable),
    ],
)
def test_what_goes_wrong_below_is_an_error_of_the_bus(
    error: Exception, meaning: type[BusError]
) -> None:
    known = to_bus_error(error, "trying")
    assert type(known) is meaning
    assert str(known).startswith("trying: ")
    assert SECRET not in str(known)


REFUSED = "Connect call failed ('127.0.0.1', 1)"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, REFUSED), "Connection refused"),
        (OSError(errno.EHOSTUNREACH, REFUSED), "No route to host"),
        (
            OSError(
                "Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0), "
                f"[Errno 113] {REFUSED}, [Errno 111] {REFUSED}"
            ),
            "Connection refused; No route to host",
        ),
        (OSError("Multiple exceptions: none"), "Multiple exceptions: none"),
    ],
)
def test_a_refused_connection_has_the_text_of_the_operating_system(
    error: Exception, text: str
) -> None:
    assert str(to_bus_error(error, "trying")) == f"trying: {text}"


@virtual
async def test_a_cancellation_that_the_library_made_is_a_lost_connection() -> None:
    with pytest.raises(Unavailable, match="the connection was closed"), map_errors("trying"):
        raise asyncio.CancelledError


@virtual
async def test_a_cancellation_of_the_task_stays_one() -> None:
    async def run() -> None:
        with map_errors("trying"):
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await settle_down()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- Log lines of the libraries ---


def test_the_libraries_lines_show_no_message(caplog: pytest.LogCaptureFixture) -> None:
    redact_library_logs()
    redact_library_logs()
    caplog.set_level("DEBUG")
    for name in ("aiormq.channel", "aiormq.connection", "aio_pika.channel"):
        theirs = logging.getLogger(name)
        theirs.debug("Received frame %r", Message())
        theirs.error("Unhandled message %r returning", Message())
        theirs.error("failed", exc_info=ValueError(SECRET))
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 6
    assert SECRET not in caplog.text


def test_the_libraries_lines_are_sentences_and_none_stands_for_each_attempt_to_connect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    redact_library_logs()
    theirs = logging.getLogger("aiormq.connection")
    # The connection logs this error itself, once.
    theirs.error("error when creating transport: %r", OSError("refused"))
    theirs.error("Got frame for closed channel %d: %r", 7, Message())
    assert caplog.messages == ["Got frame for closed channel …: …"]


# --- Properties that cannot be decoded ---


TIMESTAMP, MESSAGE_ID, HEADERS = 1 << 6, 1 << 7, 1 << 13
ILLEGIBLE = {
    "a timestamp past the year 9999": (TIMESTAMP, struct.pack(">Q", 2**63)),
    "an id that is no UTF-8": (MESSAGE_ID, b"\x02\xff\xfe"),
    "a header's name that is no UTF-8": (HEADERS, struct.pack(">I", 9) + b"\x02\xff\xfeS\0\0\0\1a"),
    "a header of an unknown type": (HEADERS, struct.pack(">I", 3) + b"\1aZ"),
    "a header's moment past the year 9999": (
        HEADERS,
        struct.pack(">I", 11) + b"\1aT" + b"\xff" * 8,
    ),
    "a table that is cut": (HEADERS, struct.pack(">I", 500) + b"\1aS"),
}


def content_header(flags: int, properties: bytes) -> bytes:
    payload = struct.pack(">HHQH", 60, 0, 5, flags) + properties
    return struct.pack(">BHI", 2, 1, len(payload)) + payload + b"\xce"


@pytest.mark.parametrize("what", ILLEGIBLE)
def test_a_message_whose_properties_cannot_be_read_arrives_without_them(what: str) -> None:
    @virtual
    async def run() -> None:
        stream = asyncio.StreamReader()
        heartbeat = pamqp.frame.marshal(Heartbeat(), 0)
        good = pamqp.frame.marshal(
            ContentHeader(body_size=2, properties=Basic.Properties(message_id="m-1")), 1
        )
        stream.feed_data(content_header(*ILLEGIBLE[what]) + heartbeat + good)
        stream.feed_eof()
        frames: list[Any] = [
            frame
            async for _, _, frame in FrameReceiver(
                cast("asyncio.StreamReader", LenientReader(stream))
            )
        ]
        assert [type(frame) for frame in frames] == [ContentHeader, Heartbeat, ContentHeader]
        assert (frames[0].body_size, frames[0].properties.message_id) == (5, None)
        assert (frames[2].body_size, frames[2].properties.message_id) == (2, "m-1")

    run()
