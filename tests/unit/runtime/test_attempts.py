"""The attempts of a request: their time, their numbers, and the doubt that they leave."""

import asyncio
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import pytest
from typing_extensions import override

from bus.errors import BusError, ConnectionLost, DeadlineExceeded, Unavailable, executed_of
from bus.messaging.envelope import Envelope, error_reply, reply
from bus.messaging.ports.transport import Delivery, PublishOutcome
from bus.messaging.resilience.call_policy import DEFAULT_POLICY, CallPolicy
from bus.messaging.resilience.destinations import Destinations
from bus.messaging.topology.addresses import Address
from bus.middleware.stacks import client_stack
from bus.runtime.client import Client
from bus.runtime.service_runtime import ServiceRuntime
from bus.settings import load_settings
from bus.settings.service_config import ServiceConfig
from tests.unit.fakes import NOW, FakeDelivery, FakeTransport, virtual
from tests.unit.ledger import Add, GetTotal, Total

SETTINGS = load_settings(request_timeout=10)
QUICK = CallPolicy(attempt_timeout=1, retries=2, retry_budget=None)


async def client_of(
    transport: FakeTransport,
    policy: CallPolicy = QUICK,
    clock: Callable[[], float] | None = None,
) -> Client:
    loop = asyncio.get_running_loop()
    clock = clock or (lambda: NOW + loop.time())

    runtime = ServiceRuntime(
        service="office",
        instance="host-1",
        transport=transport,
        settings=SETTINGS,
        clock=clock,
        destinations=Destinations({"ledger": policy}, DEFAULT_POLICY, timer=loop.time, clock=clock),
    )
    client = Client(runtime, client_stack(clock=clock))
    await client.start()
    return client


def answering(answers: Callable[[Envelope, int], Envelope | None]) -> FakeTransport:
    """Return a transport with a service that answers each attempt, or leaves it unanswered."""
    transport = FakeTransport()

    def take(sent: Envelope) -> PublishOutcome | None:
        answer = answers(sent, len(transport.sent))
        if answer is not None:
            asyncio.get_running_loop().call_soon(transport.deliver, FakeDelivery(answer))
        return None

    transport.answer = take
    return transport


def silent_until(attempt: int) -> FakeTransport:
    """Return a transport with a service that answers only from the given attempt on."""
    total = Total(total=1)
    return answering(
        lambda sent, number: reply(sent, total, source="ledger") if number >= attempt else None
    )


def now_ms() -> int:
    return int((NOW + asyncio.get_running_loop().time()) * 1000)


@virtual
async def test_an_attempt_ends_before_the_deadline_and_the_next_one_succeeds() -> None:
    transport = silent_until(3)
    client = await client_of(transport)
    assert await client.request(GetTotal(), timeout=5) == Total(total=1)
    assert 2 <= asyncio.get_running_loop().time() <= 3
    first, second, third = (sent.envelope for sent in transport.sent)
    assert first.id == second.id == third.id


@virtual
async def test_the_expiration_and_the_deadline_on_the_wire_are_those_of_the_attempt() -> None:
    transport = silent_until(2)
    client = await client_of(transport)
    await client.request(GetTotal(), timeout=5)
    first = transport.sent[0].envelope
    assert (first.expiration, first.deadline) == (1000, int(NOW * 1000) + 1000)
    second = transport.sent[1].envelope
    assert second.expiration == 1000
    assert second.deadline is not None
    assert second.deadline <= now_ms() + 1000


@virtual
async def test_the_last_attempt_has_only_the_rest_of_the_deadline() -> None:
    transport = FakeTransport()
    client = await client_of(transport)
    with pytest.raises(DeadlineExceeded) as raised:
        await client.request(GetTotal(), timeout=1.5)
    assert 1.5 <= asyncio.get_running_loop().time() <= 1.6
    last = transport.sent[-1].envelope
    assert last.expiration is not None
    assert last.expiration < 1000
    assert "in attempt 2." in str(raised.value)
    assert not raised.value.had_full_time


@virtual
async def test_the_error_of_a_slow_attempt_names_its_time_and_its_number() -> None:
    client = await client_of(FakeTransport())
    with pytest.raises(DeadlineExceeded) as raised:
        await client.request(GetTotal(), timeout=10)
    assert str(raised.value) == (
        "ledger.total.v1: no reply within 1 s in attempt 3. Check that the service runs and is not "
        "overloaded, or raise the attempt_timeout."
    )
    assert (raised.value.origin, executed_of(raised.value)) == ("service", "maybe")


class FrozenBroker(FakeTransport):
    """A transport with a broker that is frozen from the time 0 on, until `thaws_at`."""

    thaws_at = float("inf")
    connected_at: float | None = -100.0

    @property
    def heard_at(self) -> float:
        now = asyncio.get_running_loop().time()
        return now if now >= self.thaws_at else 0.0

    def ping(self) -> None: ...


@virtual
async def test_a_broker_that_is_frozen_for_many_attempts_fails_no_idempotent_call() -> None:
    transport = FrozenBroker()
    transport.thaws_at = 5.0

    def answer(sent: Envelope) -> None:
        if asyncio.get_running_loop().time() >= transport.thaws_at:
            answered = FakeDelivery(reply(sent, Total(total=1), source="ledger"))
            asyncio.get_running_loop().call_soon(transport.deliver, answered)

    transport.answer = answer
    client = await client_of(transport, CallPolicy(attempt_timeout=0.5))
    assert await client.request(GetTotal(), timeout=10) == Total(total=1)
    assert 5 <= asyncio.get_running_loop().time() <= 6.6
    assert len(transport.sent) > 3


@pytest.mark.parametrize(
    ("frozen", "connected_at", "fact"),
    [
        (True, -100.0, "RabbitMQ did not answer in this time either. Check that it runs, "),
        (False, 0.0, "RabbitMQ, the connection or this process was interrupted in this time, "),
    ],
    ids=["silent", "recovering"],
)
@virtual
async def test_the_error_of_a_time_out_by_the_broker_names_the_broker(
    frozen: bool, connected_at: float, fact: str
) -> None:
    transport = FrozenBroker()
    client = await client_of(transport, CallPolicy())
    if not frozen:
        transport.thaws_at = 0.0
        with pytest.raises(DeadlineExceeded, match="Check that the service runs"):
            await client.request(GetTotal(), timeout=1)
        connected_at += asyncio.get_running_loop().time()
    transport.connected_at = connected_at
    with pytest.raises(DeadlineExceeded) as raised:
        await client.request(GetTotal(), timeout=10 if frozen else 1)
    assert raised.value.origin == "broker"
    assert f" s. {fact}" in str(raised.value)
    assert "service" not in str(raised.value)


def ending_at_the_deadline(text: str) -> FakeTransport:
    """Return a transport with a service that answers at the end of each attempt, with an error."""
    transport = FakeTransport()

    def take(sent: Envelope) -> PublishOutcome | None:
        assert sent.expiration is not None
        answer = error_reply(sent, DeadlineExceeded(text), source="ledger")
        asyncio.get_running_loop().call_later(
            sent.expiration / 1000, transport.deliver, FakeDelivery(answer)
        )
        return None

    transport.answer = take
    return transport


OF_THE_SERVICE = (
    "ledger.total.v1: the handler did not end within 1 s, the time that the caller's deadline "
    "left. Raise the timeout of the caller."
)


@virtual
async def test_the_time_out_that_the_service_reports_names_the_attempt_and_its_setting() -> None:
    client = await client_of(ending_at_the_deadline(OF_THE_SERVICE))
    with pytest.raises(DeadlineExceeded) as raised:
        await client.request(GetTotal(), timeout=10)
    assert str(raised.value) == (
        "ledger.total.v1: the handler did not end within 1 s in attempt 3. Check that the service "
        "is not overloaded, or raise the attempt_timeout."
    )
    assert raised.value.had_full_time


@virtual
async def test_the_last_attempt_of_a_short_call_names_the_timeout() -> None:
    client = await client_of(ending_at_the_deadline(OF_THE_SERVICE))
    with pytest.raises(DeadlineExceeded) as raised:
        await client.request(GetTotal(), timeout=0.5)
    assert str(raised.value).endswith(
        " in attempt 1. Check that the service is not overloaded, or raise the timeout."
    )


@virtual
async def test_the_time_out_of_a_nested_call_keeps_its_text_beside_the_attempt() -> None:
    nested = "bank.pay.v1: no reply within 0.9 s. Check that the service runs."
    client = await client_of(ending_at_the_deadline(nested))
    with pytest.raises(DeadlineExceeded) as raised:
        await client.request(GetTotal(), timeout=10)
    assert str(raised.value) == (
        f"ledger.total.v1: {nested} Attempt 3 had 1 s. Shorten the work, or raise the "
        "attempt_timeout."
    )


@virtual
async def test_a_request_that_is_not_idempotent_ends_with_its_first_slow_attempt() -> None:
    transport = FakeTransport()
    client = await client_of(transport)
    with pytest.raises(DeadlineExceeded):
        await client.request(Add(), timeout=10)
    assert len(transport.sent) == 1
    assert 1 <= asyncio.get_running_loop().time() <= 1.1


class UnconnectedTransport(FakeTransport):
    """Transport that has no connection for the first 3 seconds of each send."""

    @override
    async def send(
        self, envelope: Envelope, address: Address, *, timeout: float, via: Delivery | None = None
    ) -> PublishOutcome:
        await asyncio.sleep(3)
        return await super().send(envelope, address, timeout=timeout, via=via)


@virtual
async def test_the_time_without_a_connection_is_not_part_of_an_attempt() -> None:
    client = await client_of(UnconnectedTransport(), CallPolicy(attempt_timeout=1, retries=0))
    with pytest.raises(DeadlineExceeded) as raised:
        await client.request(GetTotal(), timeout=10)
    assert 4 <= asyncio.get_running_loop().time() <= 4.1
    assert raised.value.had_full_time


@virtual
async def test_a_request_that_waited_for_the_connection_had_not_its_full_time() -> None:
    client = await client_of(UnconnectedTransport(), CallPolicy(retries=0))
    with pytest.raises(DeadlineExceeded) as raised:
        await client.request(GetTotal())
    assert asyncio.get_running_loop().time() == pytest.approx(10, abs=0.1)
    assert not raised.value.had_full_time


@pytest.mark.parametrize(
    ("policy", "timeout", "had_full_time"),
    [
        (CallPolicy(attempt_timeout=1, retries=0), 10, True),
        (CallPolicy(attempt_timeout=1, retries=0), 0.5, False),
        (CallPolicy(retries=0), None, True),
        (CallPolicy(retries=0), 20, True),
        (CallPolicy(retries=0), 5, False),
    ],
    ids=["attempt", "short attempt", "default", "longer", "shorter"],
)
def test_a_time_out_tells_if_the_service_had_the_configured_time(
    policy: CallPolicy, timeout: float | None, *, had_full_time: bool
) -> None:
    @virtual
    async def run() -> None:
        client = await client_of(FakeTransport(), policy)
        with pytest.raises(DeadlineExceeded) as raised:
            await client.request(GetTotal(), timeout=timeout)
        assert raised.value.had_full_time is had_full_time

    run()


@virtual
async def test_a_clock_that_is_set_back_does_not_shorten_the_time_of_an_attempt() -> None:
    loop, transport = asyncio.get_running_loop(), FakeTransport()
    client = await client_of(
        transport,
        CallPolicy(attempt_timeout=1, retries=0),
        clock=lambda: NOW + loop.time() - (60 if loop.time() > 0.5 else 0),
    )
    with pytest.raises(DeadlineExceeded) as raised:
        await client.request(GetTotal(), timeout=10)
    assert raised.value.had_full_time


@pytest.mark.parametrize(("after", "had_full_time"), [(0.1, False), (0.95, True)])
def test_a_time_out_of_the_service_itself_counts_only_after_the_configured_time(
    after: float, *, had_full_time: bool
) -> None:
    @virtual
    async def run() -> None:
        transport = FakeTransport()

        def take(sent: Envelope) -> None:
            answer = error_reply(sent, DeadlineExceeded("too slow"), source="ledger")
            loop = asyncio.get_running_loop()
            loop.call_later(after, lambda: transport.deliver(FakeDelivery(answer)))

        transport.answer = take
        client = await client_of(transport, CallPolicy(attempt_timeout=1, retries=0))
        with pytest.raises(DeadlineExceeded) as raised:
            await client.request(GetTotal(), timeout=10)
        assert "too slow" in str(raised.value)
        assert raised.value.had_full_time is had_full_time

    run()


@virtual
async def test_the_error_of_an_attempt_that_the_service_ended_does_not_end_the_next_one() -> None:
    """Let the service answer 30 ms after the end of the first attempt, as over a network."""
    transport = FakeTransport()

    def take(sent: Envelope) -> None:
        is_first = len(transport.sent) == 1
        answer = reply(sent, Total(total=2), source="ledger")
        if is_first:
            answer = error_reply(sent, DeadlineExceeded("ended"), source="ledger")
        deliver = partial(transport.deliver, FakeDelivery(answer))
        asyncio.get_running_loop().call_later(1.03 if is_first else 0.5, deliver)

    transport.answer = take
    client = await client_of(transport, CallPolicy(attempt_timeout=1, retries=1))
    with patch("bus.middleware.retry.backoff", return_value=0):
        assert await client.request(GetTotal(), timeout=10) == Total(total=2)
    assert len(transport.sent) == 2


@virtual
async def test_a_request_is_retried_inside_the_resends_after_a_lost_connection() -> None:
    """Lose the connection once, and then let the service refuse the request once."""

    def answers(sent: Envelope, number: int) -> Envelope | None:
        if number == 1:
            raise ConnectionLost("lost", maybe_executed=True)
        if number == 2:
            refusal = Unavailable("busy", executed="no")
            return error_reply(sent, refusal, source="ledger", has_run=False)
        return reply(sent, Total(total=2), source="ledger")

    transport = answering(answers)
    client = await client_of(transport)
    assert await client.request(GetTotal(), timeout=5) == Total(total=2)
    assert len(transport.sent) == 2 + 1


@virtual
async def test_no_retries_in_the_settings_turn_off_the_retries_of_every_kind() -> None:
    settings = load_settings(request_timeout=10, services=[ServiceConfig("ledger", retries=0)])
    transport = answering(
        lambda sent, _: error_reply(sent, Unavailable("busy"), source="ledger", has_run=False)
    )
    runtime = ServiceRuntime(
        service="office",
        instance="host-1",
        transport=transport,
        settings=settings,
        clock=lambda: NOW,
        destinations=Destinations(
            settings.registry.policies(), DEFAULT_POLICY, timer=asyncio.get_running_loop().time
        ),
    )
    client = Client(runtime, client_stack(clock=lambda: NOW))
    await client.start()
    with pytest.raises(BusError):
        await client.request(GetTotal())
    assert len(transport.sent) == 1
