import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from typing_extensions import override

from bus.contracts.contract import Job
from bus.contracts.retry_policy import RetryPolicy
from bus.messaging.ports.transport import ConsumerHandle, Nacked, PublishOutcome
from bus.runtime.endpoint_consumer import EndpointConsumer
from bus.runtime.poison_isolation import (
    CandidateQueue,
    PoisonCandidate,
    PoisonIsolation,
    SerialRunner,
    next_candidate,
)
from bus.runtime.receiver import Receiver
from bus.runtime.router import Router
from tests.unit.fakes import (
    LIMIT,
    FakeConsumerHandle,
    FakeDelivery,
    FakeTransport,
    envelope,
    receiver_of,
    settle_down,
    virtual,
)
from tests.unit.ledger import CloseBooks, Total


def suspect(queue: str, losses: int) -> PoisonCandidate:
    return PoisonCandidate(queue=queue, id=f"{queue}-{losses}", losses=losses)


def ended_suspect(queue: str, losses: int) -> PoisonCandidate:
    """Return a candidate that ends as soon as it runs."""
    candidate = suspect(queue, losses)
    candidate.end()
    return candidate


@pytest.mark.parametrize(
    ("suspects", "first"),
    [
        ([suspect("a", 4)], "a"),
        ([suspect("a", 4), suspect("b", 3)], "b"),
        ([suspect("b", 2), suspect("a", 2)], "a"),
        ([suspect("a", 3), suspect("b", 3)], "b"),
        ([suspect("a", 4), suspect("b", 4), suspect("c", 5)], "a"),
        ([suspect("a", 4), suspect("b", 4), suspect("c", 4)], "b"),
    ],
)
def test_the_least_suspicious_is_run_first_and_of_equals_another_one_each_time(
    suspects: list[PoisonCandidate], first: str
) -> None:
    assert next_candidate(suspects).queue == first


@pytest.mark.parametrize("equals", range(2, 9))
def test_of_so_many_equals_each_is_first_before_it_is_given_up(equals: int) -> None:
    """Try the worst case: all candidates but one end their process, and all are lost each time."""
    firsts = {
        next_candidate([suspect(str(number), losses) for number in range(equals)]).queue
        for losses in range(2, LIMIT)
    }
    assert len(firsts) == equals


@virtual
async def test_in_single_file_one_runs_at_a_time_and_who_comes_meanwhile_waits() -> None:
    ran, most, picked = list[str](), [0, 0], list[int]()

    def last(count: int) -> int:
        picked.append(count)
        return count - 1

    file = SerialRunner(last)

    async def work(name: str, candidate: PoisonCandidate) -> None:
        assert await candidate.wait_turn()
        most[0] += 1
        most[1] = max(most)
        await asyncio.sleep(1)
        most[0] -= 1
        ran.append(name)
        candidate.end()

    works = []

    def add(name: str) -> None:
        candidate = suspect(name, 0)
        works.append(asyncio.create_task(work(name, candidate)))
        file.add(candidate)

    for name in "abc":
        add(name)
    await asyncio.sleep(0.5)
    add("d")
    await asyncio.sleep(9)
    add("e")
    await asyncio.sleep(9)
    assert ("".join(ran), most, picked) == ("cdbae", [0, 1], [3, 3, 2, 1, 1])


# --- Deliveries at a receiver ---


@dataclass
class Counting(FakeDelivery):
    looks: list[str] = field(default_factory=list)
    losses: int | None = None

    @override
    def __getattribute__(self, name: str) -> Any:
        if name == "broker_headers":
            self.looks.append(name)
            return {} if self.losses is None else {"x-delivery-count": self.losses}
        return super().__getattribute__(name)


def delivered(losses: int | None, *, redelivered: bool = True) -> Counting:
    known: Mapping[str, Any] = {"queue": "ledger.jobs.close.v1", "role": "job"}
    return Counting(envelope("ledger.close.v1", **known), redelivered=redelivered, losses=losses)


def job(transport: FakeTransport, candidates: CandidateQueue, began: list[Job[Any]]) -> Receiver:
    router = Router("ledger")

    async def work(message: CloseBooks) -> Total:
        began.append(message)
        return Total(total=1)

    router.job(CloseBooks, concurrency=2, retry=RetryPolicy(attempts=3))(work)
    return receiver_of(router, transport, candidates=candidates)


@virtual
async def test_of_what_was_not_delivered_before_nobody_reads_a_header() -> None:
    began, delivery = list[Job[Any]](), delivered(7, redelivered=False)
    receiver = job(FakeTransport(), CandidateQueue(), began)
    receiver.on_delivery(delivery)
    await receiver.drain()
    assert (len(began), delivery.acks, delivery.looks) == (1, 1, [])


@virtual
async def test_what_was_lost_once_runs_as_any_other() -> None:
    began, candidates = list[Job[Any]](), CandidateQueue()
    receiver = job(FakeTransport(), candidates, began)
    receiver.on_delivery(delivered(1))
    await receiver.drain()
    assert (len(began), candidates.waiting) == (1, [])


@virtual
async def test_what_was_lost_twice_waits_for_its_turn_and_a_further_delivery_of_it_joins() -> None:
    began, candidates = list[Job[Any]](), CandidateQueue()
    receiver, first, second = job(FakeTransport(), candidates, began), delivered(2), delivered(3)
    receiver.on_delivery(first)
    receiver.on_delivery(second)
    await settle_down()
    assert (len(began), len(candidates.waiting), receiver.state.in_flight.has_deferred) == (
        0,
        1,
        True,
    )
    quarantine = PoisonIsolation(candidates, [])
    quarantine.start()
    await asyncio.sleep(1)
    assert (len(began), first.acks, second.acks, receiver.state.in_flight.has_deferred) == (
        1,
        1,
        1,
        False,
    )
    await quarantine.stop()


@virtual
async def test_what_was_lost_too_often_is_dead_lettered_and_never_run() -> None:
    began, transport, delivery = list[Job[Any]](), FakeTransport(), delivered(LIMIT)
    receiver = job(transport, CandidateQueue(), began)
    receiver.on_delivery(delivery)
    await receiver.drain()
    (dead,) = [
        sent.envelope.headers for sent in transport.sent if sent.address.exchange == "bus.dead"
    ]
    assert (began, delivery.acks) == ([], 1)
    assert (dead["dead-code"], dead["dead-error"], dead["dead-attempts"]) == (
        "process_lost",
        "ProcessLost",
        1,
    )
    assert dead["dead-reason"] == (
        "ProcessLost: ledger.close.v1: the process that handled the message ended, or lost its "
        f"connection, {LIMIT} times"
    )


@virtual
async def test_what_was_lost_too_often_and_cannot_be_dead_lettered_is_requeued_and_never_run() -> (
    None
):
    began, transport = list[Job[Any]](), FakeTransport()
    receiver, first, second = (
        job(transport, CandidateQueue(), began),
        delivered(LIMIT),
        delivered(LIMIT + 1),
    )
    transport.answer = _full
    receiver.on_delivery(first)
    await receiver.drain()
    transport.answer = lambda _: None
    receiver.on_delivery(second)
    await receiver.drain()
    assert (began, first.requeues, second.acks) == ([], 1, 1)


def _full(_: Any) -> PublishOutcome:
    return Nacked(reason="full")


@virtual
async def test_a_stop_hands_back_what_waits_for_its_turn() -> None:
    began, delivery = list[Job[Any]](), delivered(2)
    receiver = job(FakeTransport(), CandidateQueue(), began)
    receiver.on_delivery(delivery)
    receiver.stop_accepting()
    await receiver.drain()
    assert (began, delivery.requeues, receiver.state.in_flight.has_deferred) == ([], 1, False)


@dataclass
class Slow(FakeConsumerHandle):
    """A consumer with a cancel that waits for `hold`, and that counts its cancellations."""

    cut: int = 0

    @override
    async def cancel(self) -> None:
        try:
            await super().cancel()
        except asyncio.CancelledError:
            self.cut += 1
            raise


@virtual
async def test_a_stop_does_not_cut_short_what_is_said_on_a_channel_with_unacked_messages() -> None:
    slow = Slow(hold=asyncio.Event())
    transport = FakeTransport(consumption=slow)
    intake = EndpointConsumer(transport, job(transport, CandidateQueue(), []))
    await intake.start()
    transport.deliver(delivered(0, redelivered=False))
    await settle_down()  # the second consumer has started, and the first is being cancelled
    stop = asyncio.create_task(intake.cancel())
    await settle_down()
    assert (slow.cut, stop.done()) == (0, False)
    assert slow.hold is not None
    slow.hold.set()
    await stop
    assert slow.cut == 0


@virtual
async def test_a_stop_does_not_cut_short_a_halt_on_channels_with_unacked_messages() -> None:
    slow, candidates = Slow(hold=asyncio.Event()), CandidateQueue()
    transport = FakeTransport(consumption=slow)
    intake = EndpointConsumer(transport, job(transport, candidates, []))
    quarantine = PoisonIsolation(candidates, [intake])
    await intake.start()
    quarantine.start()
    candidates.add(ended_suspect("another queue", 2))
    await settle_down()
    assert not slow.ready  # the consumer is being cancelled for the candidate
    await quarantine.stop()
    stop = asyncio.create_task(intake.cancel())
    await settle_down()
    assert (slow.cut, stop.done()) == (0, False)
    assert slow.hold is not None
    slow.hold.set()
    await stop
    assert slow.cut == 0


@virtual
async def test_who_could_not_be_resumed_at_once_is_resumed_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing(FakeTransport):
        failures = 0

        @override
        async def consume(self, *args: Any, **options: Any) -> ConsumerHandle:
            if self.failures:
                self.failures -= 1
                raise KeyError("a fault of the program")
            return await super().consume(*args, **options)

    transport, candidates = Failing(), CandidateQueue()
    intake = EndpointConsumer(transport, job(transport, candidates, []))
    quarantine = PoisonIsolation(candidates, [intake])
    await intake.start()
    quarantine.start()
    transport.failures = 1
    candidates.add(ended_suspect("another queue", 2))
    await settle_down()
    assert intake.is_idle
    transport.consumption.ready = True
    await asyncio.sleep(10)
    assert (transport.failures, intake.is_idle, intake.last_error) == (0, False, None)
    await quarantine.stop()
