"""Tests of requests with a `reply_to` to which the service may not publish.

They must not disturb other callers. The services sign with keys, and each has a broker user.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest

from bus import CLIENT, Bus, DeadlineExceeded, Router
from bus.contracts.contract import contract_of
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.messaging.topology.names import job_queue
from bus.operations.brokers.broker import Broker
from bus.security.grants_file import load_grants
from tests.integration.broker_users import Place, place_for
from tests.polling import until
from tests.security.attacks.return_addresses import DIRECT
from tests.security.deployment import Deployment
from tests.unit.ledger import Add, BooksClosed, CloseBooks, GetTotal, Total

pytestmark = pytest.mark.timeout(120)

REFUSED_BY_BROKER = (
    "office.replies.a b",
    "office.replies.",
    "nobody.replies.1",
    "ledger.replies.1",
    DIRECT,
)
CONTRACTS = [contract_of(each) for each in (Add, BooksClosed, CloseBooks, GetTotal)]
QUEUE = job_queue(contract_of(CloseBooks))
PATIENCE = 60


class Ledger:
    """A service that records the requests and jobs that it handled."""

    def __init__(self) -> None:
        self.handled: list[int] = []
        self.router = Router("ledger")
        self.router.request(Add)(self.add)
        self.router.job(CloseBooks)(self.close)

    async def add(self, request: Add) -> Total:
        self.handled.append(request.amount)
        return Total(total=request.amount)

    async def close(self, job: CloseBooks) -> Total:
        self.handled.append(job.year)
        return Total(total=job.year)


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
async def place(
    shared_broker: Broker, vhost_url: str, deployment: Deployment, ledger: Ledger
) -> AsyncIterator[Place]:
    grants = load_grants(deployment.grants, CONTRACTS)
    async with place_for(shared_broker, vhost_url, [ledger.router], grants, CONTRACTS) as place:
        yield place


def answered_at(reply_to: str) -> Middleware:
    """Return a client middleware that sets `reply_to` before the message is signed."""

    def layer(inner: Handler) -> Handler:
        def call(envelope: Envelope) -> Awaitable[Envelope | None]:
            return inner(envelope.replace(reply_to=reply_to))

        return call

    return layer


async def test_who_asks_to_be_answered_where_the_broker_refuses_it_costs_nobody_his_answer(
    place: Place, deployment: Deployment, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    async def attack(reply_to: str) -> None:
        settings = place.settings("office", **deployment.of("office"))
        async with Bus(
            "office", settings=settings, client=[*CLIENT, answered_at(reply_to)]
        ) as office:
            with pytest.raises(DeadlineExceeded):
                await office.request(Add(amount=-1), timeout=2)
            await office.submit(CloseBooks(year=-1), timeout=PATIENCE)

    async with (
        place.bus("ledger", **deployment.of("ledger")) as owner,
        owner.serving(ledger.router),
        place.bus("office", **deployment.of("office")) as office,
    ):
        attacks = [asyncio.create_task(attack(each)) for each in REFUSED_BY_BROKER]
        while not all(each.done() for each in attacks):
            assert (await office.request(Add(amount=7), timeout=PATIENCE)).total == 7
        await asyncio.gather(*attacks)
        assert (
            await (await office.submit(CloseBooks(year=1999), timeout=PATIENCE)).result(
                timeout=PATIENCE
            )
        ).total == 1999
        async with asyncio.timeout(PATIENCE):
            while True:
                letters = await owner.dead_letters(QUEUE)
                if len(letters) >= len(REFUSED_BY_BROKER):
                    break
                await asyncio.sleep(0.1)
    assert [each.record.code for each in letters] == ["unauthenticated"] * len(REFUSED_BY_BROKER)
    assert set(ledger.handled) == {7, 1999}
    assert " rejected: " in caplog.text
    assert "consuming again" not in caplog.text
    assert "the broker refused a publish, and closed the channel" not in caplog.text


async def test_a_job_whose_submitter_the_broker_lets_nobody_tell_is_done_once(
    place: Place, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    """Check a job that is accepted although its submitter cannot be notified.

    Without keys the job is accepted. With keys this happens if the worker's user is older than the
    grants.
    """
    async with (
        place.bus("ledger") as owner,
        owner.serving(ledger.router),
        place.bus("office") as office,
    ):
        async with Bus(
            "office",
            settings=place.settings("office"),
            client=[*CLIENT, answered_at("nobody.replies.1")],
        ) as stranger:
            await stranger.submit(CloseBooks(year=-1), timeout=PATIENCE)
        assert (
            await (await office.submit(CloseBooks(year=1999), timeout=PATIENCE)).result(
                timeout=PATIENCE
            )
        ).total == 1999
        await until(
            lambda: "the broker denied permission to send the result of" in caplog.text,
            "the refusal",
        )
    async with (
        place.bus("ledger") as again,
        again.serving(ledger.router),
        place.bus("office") as office,
    ):
        assert (
            await (await office.submit(CloseBooks(year=2000), timeout=PATIENCE)).result(
                timeout=PATIENCE
            )
        ).total == 2000
    assert sorted(ledger.handled) == [-1, 1999, 2000], "it is done, and gone from its queue"
