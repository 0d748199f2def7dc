"""The stages that claim a message for a transactional handler, and that commit its writes."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from bus import Context, Router
from bus.errors import Aborted, ConfigurationError, FailedPrecondition, Unavailable
from bus.messaging.context import current
from bus.messaging.dependency_wait import DEPENDENCY_RETURNS
from bus.messaging.envelope import Envelope
from bus.messaging.instruments import DUPLICATES, HANDLED, STALE_COMMITS
from bus.messaging.jobs.records import Attempt, JobKey
from bus.messaging.ports.inbox import FactKey
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.held_messages import HoldEnd
from bus.runtime.inbound import INBOUND, compose_inbound
from bus.runtime.inbound_message import (
    NO_ACTION,
    REQUEUE,
    SETTLED,
    HandlingResult,
    InboundHandler,
    InboundMessage,
)
from bus.runtime.job_reports import JobReports
from bus.runtime.poison_isolation import PoisonCandidate
from bus.runtime.service_activator import ServiceActivator, ServiceStack
from bus.runtime.settler import Settler
from bus.runtime.stages.claim_message import claim_message
from bus.runtime.stages.commit_writes import MAX_CONFLICTS, commit_writes
from bus.runtime.stages.deduplicate import deduplicate
from bus.storage.memory.meter import MemoryMeter
from bus.storage.memory.store import MemoryStore
from tests.unit.fakes import FakeDelivery, FakeTransport, NoSender, envelope, state_of, virtual
from tests.unit.ledger import BooksClosed, CloseBooks, Total

LEASE = 30.0
HELD = Aborted("another process handles the message now", retry_after=LEASE)
QUEUE = "audit.events.ledger.closed.v1"


class Conflict(Exception):
    """A serialization failure of the database."""


class FakeTransaction:
    """A transaction whose commits have scripted outcomes."""

    def __init__(self, outcomes: list[bool | Exception]) -> None:
        self.session: Any = object()
        self.sessions: list[Any] = []
        self.outcomes = outcomes
        self.ends: list[Any] = []

    async def commit(self, end: Any = None, *, progress: Any = None) -> bool:
        self.ends.append(end)
        self.sessions.append(self.session)
        outcome = self.outcomes.pop(0) if self.outcomes else True
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def restart(self) -> None:
        self.session = object()

    def is_conflict(self, error: BaseException) -> bool:
        return isinstance(error, Conflict)


class FakeStore(MemoryStore):
    """A store with scripted claims: an error, None for a handled message, or a transaction."""

    def __init__(self, *claims: Exception | None, commits: Any = ()) -> None:
        super().__init__()
        self.claims = list(claims)
        self.commits = list(commits)
        self.keys: list[FactKey | Attempt] = []
        self.opened: list[FakeTransaction] = []
        self.closed = 0

    @property
    @override
    def has_transactions(self) -> bool:
        return True

    @asynccontextmanager
    async def _begin(self, key: FactKey | Attempt) -> AsyncIterator[FakeTransaction | None]:
        self.keys.append(key)
        claim = self.claims.pop(0) if self.claims else "free"
        if isinstance(claim, Exception):
            raise claim
        if claim is None:
            yield None
            return
        self.opened.append(FakeTransaction(self.commits))
        yield self.opened[-1]
        self.closed += 1

    @override
    def transaction(self, key: FactKey | Attempt, *, lease: float) -> Any:
        assert lease == LEASE
        return self._begin(key)


def state(store: MemoryStore | None, model: Any = BooksClosed, **options: Any) -> EndpointState:
    router = Router("audit" if model is BooksClosed else "ledger")

    async def work(_message: Any, session: AsyncSession) -> Any:
        return None if model is BooksClosed else Total(total=1)

    register: Any = router.event if model is BooksClosed else router.job
    register(model, **{"transactional": True, **options})(work)
    made = state_of(router, FakeTransport())
    runtime = replace(made.runtime, store=store, meter=MemoryMeter())
    return EndpointState(
        endpoint=made.endpoint,
        spec=made.spec,
        runtime=runtime,
        guard=made.guard,
        candidates=made.candidates,
    )


def event(**attributes: Any) -> InboundMessage:
    known = {"role": "event", "source": "ledger", "queue": QUEUE, **attributes}
    return InboundMessage(FakeDelivery(envelope("ledger.closed.v2", **known)))


def counted(endpoint: EndpointState, name: str) -> float:
    meter = endpoint.runtime.meter
    assert isinstance(meter, MemoryMeter)
    return sum(each.value for each in meter.snapshot() if each.name == name)


class Inner:
    """A handler that records the session of each run, and whose runs have scripted errors."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.sessions: list[Any] = []

    async def __call__(self, message: InboundMessage) -> HandlingResult:
        transaction = message.transaction
        self.sessions.append(None if transaction is None else transaction.session)
        error = self.errors.pop(0) if self.errors else None
        return HandlingResult(error=error, has_run=True)


def both(endpoint: EndpointState, inner: InboundHandler) -> InboundHandler:
    return claim_message(endpoint)(commit_writes(endpoint)(inner))


# --- Claims ---


def test_the_claim_has_the_place_of_the_deduplication_and_the_commit_is_innermost() -> None:
    assert INBOUND.index(claim_message) == INBOUND.index(deduplicate) + 1
    assert INBOUND[-1] is commit_writes


@virtual
async def test_the_handler_runs_in_the_transaction_of_its_claim_which_is_then_committed() -> None:
    inner, store = Inner(), FakeStore()
    result = await both(state(store), inner)(event(id="m-7"))
    (transaction,) = store.opened
    assert (result.error, inner.sessions) == (None, transaction.sessions)
    assert (transaction.ends, store.closed) == ([None], 1)


@virtual
async def test_the_key_of_a_claim_has_no_version_and_has_the_subscription() -> None:
    store = FakeStore()
    await both(state(store, subscription="book"), Inner())(event(id="m-7"))
    await both(state(store), Inner())(event(id="m-7"))
    assert store.keys == [
        FactKey("audit", "ledger.closed", "book", "ledger", "m-7"),
        FactKey("audit", "ledger.closed", "", "ledger", "m-7"),
    ]


@virtual
async def test_a_handled_message_is_acked_without_a_run_and_counted() -> None:
    inner, endpoint = Inner(), state(FakeStore(None))
    assert await both(endpoint, inner)(event()) is SETTLED
    assert (inner.sessions, counted(endpoint, DUPLICATES.name)) == ([], 1)


@virtual
async def test_the_deduplication_in_memory_is_left_out_for_a_transactional_handler() -> None:
    inner, endpoint = Inner(), state(FakeStore())
    stage = deduplicate(endpoint)(inner)
    await stage(event())
    await stage(event())
    assert len(inner.sessions) == 2


@virtual
async def test_a_message_that_another_process_handles_waits_and_uses_no_attempt() -> None:
    inner, store, loop = Inner(), FakeStore(*[HELD] * 10, None), asyncio.get_running_loop()
    message, began = event(), loop.time()
    assert await both(state(store), inner)(message) is SETTLED
    assert inner.sessions == []
    assert loop.time() - began > 10 * 0.05  # it does not ask again at once
    (delivery,) = message.deliveries
    assert (delivery.requeues, delivery.acks) == (0, 0)  # type: ignore[attr-defined]


@virtual
async def test_a_message_whose_first_process_has_ended_is_taken_over_after_the_lease() -> None:
    loop = asyncio.get_running_loop()
    ends = loop.time() + LEASE

    class Leased(FakeStore):
        @override
        def transaction(self, key: FactKey | Attempt, *, lease: float) -> Any:
            rest = ends - loop.time()
            self.claims = [Aborted(retry_after=rest)] if rest > 0 else []
            return super().transaction(key, lease=lease)

    inner, store = Inner(), Leased()
    assert (await both(state(store), inner)(event())).error is None
    assert len(inner.sessions) == 1
    assert LEASE <= loop.time() < LEASE + 2
    assert len(store.keys) < 200


@virtual
async def test_after_two_leases_a_held_message_returns_by_a_retry_tier_on_its_attempt() -> None:
    loop, endpoint = asyncio.get_running_loop(), state(FakeStore(*[HELD] * 1000))
    message = event(attempt=2)
    result = await both(endpoint, Inner())(message)
    assert 2 * LEASE <= loop.time() < 2 * LEASE + 2
    settler = Settler(endpoint, JobReports(endpoint.runtime))
    assert await settler.settle(message, result)
    transport = endpoint.runtime.transport
    assert isinstance(transport, FakeTransport)
    (copy,) = transport.sent
    assert copy.envelope.attempt == 2
    assert copy.envelope.headers[DEPENDENCY_RETURNS] == 1
    assert copy.address.routing_key == QUEUE
    assert any(tier in copy.address.exchange for tier in endpoint.endpoint.tiers())
    assert counted(endpoint, HANDLED.name) == 0


@virtual
async def test_a_poison_candidate_is_held_and_keeps_its_count_of_lost_deliveries() -> None:
    """Refuse it for longer than two leases: a copy in a retry tier would have no lost delivery."""
    inner, endpoint = Inner(), state(FakeStore(*[HELD] * 300))
    endpoint.in_flight.end_holds(HoldEnd.RETURN)  # the pause for the candidate
    message = event()
    message.candidate = PoisonCandidate(queue=QUEUE, id="m-1", losses=2)
    assert (await both(endpoint, inner)(message)).dependency_return is None
    assert asyncio.get_running_loop().time() > 2 * LEASE
    assert len(inner.sessions) == 1


@virtual
async def test_a_pause_for_a_poison_candidate_returns_the_held_messages() -> None:
    endpoint = state(FakeStore(*[HELD] * 1000))
    running = asyncio.ensure_future(both(endpoint, Inner())(event()))
    await asyncio.sleep(1)
    endpoint.in_flight.end_holds(HoldEnd.RETURN)
    result = await running
    assert result.dependency_return is not None
    assert asyncio.get_running_loop().time() == 1


@virtual
async def test_a_stop_requeues_a_held_message_at_once() -> None:
    endpoint = state(FakeStore(*[HELD] * 1000))
    running = asyncio.ensure_future(both(endpoint, Inner())(event()))
    await asyncio.sleep(1)
    endpoint.in_flight.stop()
    assert await running is REQUEUE
    assert asyncio.get_running_loop().time() == 1
    assert await both(endpoint, Inner())(event()) is REQUEUE
    assert endpoint.in_flight.held == {}


@virtual
async def test_a_held_message_whose_channel_has_closed_takes_no_action() -> None:
    message = event()
    (delivery,) = message.deliveries
    delivery.alive = False  # type: ignore[attr-defined]
    assert await both(state(FakeStore(HELD)), Inner())(message) is NO_ACTION


@virtual
async def test_while_the_store_is_away_the_message_waits_and_does_not_fail() -> None:
    away = Unavailable("the store cannot be reached")
    inner, store = Inner(), FakeStore(away, away, HELD, away)
    assert (await both(state(store), inner)(event())).error is None
    assert len(inner.sessions) == 1


# --- Commits ---


@virtual
async def test_a_failed_handler_is_not_committed() -> None:
    error, store = KeyError(), FakeStore()
    result = await both(state(store), Inner(error))(event())
    assert (result.error, store.opened[0].ends, store.closed) == (error, [], 1)


@virtual
async def test_a_failed_commit_fails_the_attempt_for_all_stages() -> None:
    error = FailedPrecondition("the handler has committed itself")
    endpoint = state(FakeStore(commits=[error]))
    handle = compose_inbound(endpoint, Inner())
    assert (await handle(event(id="m-3"))).error is error
    (series,) = [
        each
        for each in endpoint.runtime.meter.snapshot()  # type: ignore[attr-defined]
        if each.name == HANDLED.name
    ]
    assert "failed_precondition" in series.labels.values()


@pytest.mark.parametrize("in_handler", [True, False])
@virtual
async def test_after_a_conflict_the_handler_runs_again_in_a_new_session(in_handler: bool) -> None:
    errors = [Conflict(), Conflict()]
    store = FakeStore(commits=[] if in_handler else errors)
    inner = Inner(*errors) if in_handler else Inner()
    result = await both(state(store), inner)(event())
    assert (result.error, len(store.keys)) == (None, 1)
    assert len(set(inner.sessions)) == 3
    assert store.opened[0].sessions[-1] is inner.sessions[-1]


@virtual
async def test_after_too_many_conflicts_the_attempt_fails_with_a_retryable_error() -> None:
    inner = Inner()
    result = await both(state(FakeStore(commits=[Conflict()] * 100)), inner)(event())
    assert isinstance(result.error, Aborted)
    assert result.error.retryable
    assert isinstance(result.error.__cause__, Conflict)
    assert len(inner.sessions) == MAX_CONFLICTS


@virtual
async def test_no_run_begins_after_the_timeout_of_the_handler_or_during_a_stop() -> None:
    class Slow(Inner):
        @override
        async def __call__(self, message: InboundMessage) -> HandlingResult:
            await asyncio.sleep(6)
            return await super().__call__(message)

    slow = Slow()
    endpoint = state(FakeStore(commits=[Conflict()] * 100), timeout=10)
    assert isinstance((await both(endpoint, slow)(event())).error, Aborted)
    assert len(slow.sessions) == 2
    endpoint.in_flight.is_stopping = True
    assert isinstance((await both(endpoint, slow)(event())).error, Aborted)
    assert len(slow.sessions) == 3


@virtual
async def test_a_stale_commit_is_counted_and_the_message_is_acked_only_if_it_is_handled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)

    class Lost(FakeStore):
        @override
        def transaction(self, key: FactKey | Attempt, *, lease: float) -> Any:
            # The other process runs when this one claims the message again, and then it is done.
            outcomes: list[Any] = [[], [HELD], [None]]
            self.claims = outcomes[len(self.keys)]
            return super().transaction(key, lease=lease)

    inner, store = Inner(), Lost(commits=[False])
    endpoint = state(store)
    assert await both(endpoint, inner)(event()) is SETTLED
    assert (len(inner.sessions), len(store.keys)) == (1, 3)
    assert counted(endpoint, STALE_COMMITS.name) == 1
    assert "the writes of the handler were discarded" in caplog.text


class Row:
    """The row of a durable job."""

    attempt = Attempt(JobKey("office", "m-1"), 4)

    def __init__(self, *, is_valid: bool) -> None:
        self.is_valid = is_valid
        self.replies: list[Envelope | None] = []

    async def commit(self, transaction: Any, reply: Envelope | None) -> bool:
        self.replies.append(reply)
        return self.is_valid


@pytest.mark.parametrize("is_valid", [True, False])
@virtual
async def test_the_row_of_a_job_is_its_claim_and_ends_with_the_transaction(is_valid: bool) -> None:
    store, row = FakeStore(), Row(is_valid=is_valid)
    message = InboundMessage(FakeDelivery(envelope("ledger.close.v1", role="job")))
    message.deliveries[0].row = row  # type: ignore[attr-defined]
    endpoint = state(store, CloseBooks)
    result = await both(endpoint, Inner())(message)
    assert store.keys == [row.attempt]
    assert row.replies == [None]
    assert result.is_committed if is_valid else result is NO_ACTION
    assert counted(endpoint, STALE_COMMITS.name) == 0  # the row counts it


@virtual
async def test_the_context_of_a_transactional_handler_has_the_session() -> None:
    store, seen = FakeStore(), list[Any]()
    endpoint = state(store)

    async def handler(_: Envelope) -> None:
        context = current.get()
        assert isinstance(context, Context)
        seen.append(context.session)

    stack = ServiceStack(handler=handler, sender=NoSender())
    activator = ServiceActivator(endpoint, stack, JobReports(endpoint.runtime))
    await both(endpoint, activator.handle)(event())
    assert seen == store.opened[0].sessions


# --- Services without a database ---


@pytest.mark.parametrize(
    ("store", "problem"), [(None, "has no store"), (MemoryStore(), "is in memory")]
)
def test_a_transactional_handler_without_a_database_is_refused_with_the_setting(
    store: MemoryStore | None, problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"ledger.closed.v1.*{problem}.*BUS_STORE"):
        claim_message(state(store))
