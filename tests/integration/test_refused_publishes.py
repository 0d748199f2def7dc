"""Tests of publishes that the broker refuses.

The broker then closes the channel that all other publishes use as well. The refused publish must
fail at once, and the others must succeed.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from bus import (
    Bus,
    BusError,
    ConnectionLost,
    Context,
    Job,
    Message,
    PermissionDenied,
    Request,
    Router,
    contract,
)
from bus.contracts.contract import contract_of
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.topology.addresses import Address
from bus.operations.brokers.broker import Broker
from bus.security.grants import Grants, ServiceGrants
from tests.integration.broker_users import Place, place_for
from tests.polling import until

pytestmark = pytest.mark.timeout(120)

PATIENCE = 60
"""Seconds of the calls. A call that waits for this deadline fails by the test's own time limit."""
MANY = 20
REMEMBERED = 12
"""Number of topics that RabbitMQ caches as allowed for a channel.

It checks other topics again, and may then refuse them.
"""


class Found(Message):
    number: int


@contract("shelf.find", version=1)
class Find(Request[Found]):
    number: int


@contract("shelf.hide", version=1, idempotent=True)
class Hide(Request[None]):
    pass


@contract("shelf.sort", version=1)
class Sort(Job[Found]):
    number: int


@contract("shelf.burn", version=1)
class Burn(Job[None]):
    pass


CONTRACTS = [contract_of(each) for each in (Find, Hide, Sort, Burn)]
GRANTS = Grants(
    {"desk": ServiceGrants(call=frozenset({"shelf.find", "shelf.sort"})), "shelf": ServiceGrants()}
)
TOPIC = (
    "not sent: .*access to topic 'shelf.{}.v1' in exchange '{}' in vhost .* refused for user 'desk'"
)

shelf = Router("shelf")
done: Counter[str] = Counter()
held: set[str] = set()
"""A switch for the handlers: no request is answered while the set has an element."""


@shelf.request(Find, concurrency=MANY)
async def find(request: Find) -> Found:
    done[f"find {request.number}"] += 1
    await until(lambda: not held, "the answer")
    return Found(number=request.number)


@shelf.request(Hide)
async def hide(request: Hide) -> None:
    done["hide"] += 1
    await until(lambda: not held, "the answer")


@shelf.job(Sort, concurrency=MANY)
async def sort(job: Sort, context: Context) -> Found:
    done[f"sort {job.number}"] += 1
    return Found(number=job.number)


@shelf.job(Burn)
async def burn(job: Burn) -> None:
    done["burn"] += 1


@pytest.fixture
async def place(shared_broker: Broker, vhost_url: str) -> AsyncIterator[Place]:
    done.clear()
    held.clear()
    async with place_for(shared_broker, vhost_url, [shelf], GRANTS, CONTRACTS) as place:
        yield place


async def outcomes(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """Start all calls in their order in one turn of the loop, and return their outcomes."""
    return await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize("fastlane", [True, False], ids=["lane", "plain"])
async def test_who_asks_what_the_broker_refuses_hears_so_at_once(
    place: Place, fastlane: bool
) -> None:
    async with (
        place.bus("shelf") as owner,
        owner.serving(shelf),
        place.bus("desk", fastlane=fastlane) as desk,
    ):
        with pytest.raises(PermissionDenied, match=TOPIC.format("hide", "bus.requests")) as told:
            await desk.request(Hide(), timeout=PATIENCE)
        assert not told.value.maybe_executed
        with pytest.raises(PermissionDenied, match=TOPIC.format("burn", "bus.jobs")):
            await desk.submit(Burn(), timeout=PATIENCE)
        assert (await desk.request(Find(number=1), timeout=PATIENCE)).number == 1
    assert done == {"find 1": 1}


async def test_requests_beside_one_that_is_refused_are_answered_and_none_runs_twice(
    place: Place,
) -> None:
    async with place.bus("shelf") as owner, owner.serving(shelf), place.bus("desk") as desk:
        before = [desk.request(Find(number=number), timeout=PATIENCE) for number in range(MANY)]
        behind = [
            desk.request(Find(number=number), timeout=PATIENCE) for number in range(MANY, 2 * MANY)
        ]
        refused = [desk.request(Hide(), timeout=PATIENCE) for _ in range(3)]
        found = await outcomes(*before, *refused, *behind)
    assert [type(each) for each in found if not isinstance(each, Found)] == [PermissionDenied] * 3
    assert sorted(each.number for each in found if isinstance(each, Found)) == [*range(2 * MANY)]
    assert done == {f"find {number}": 1 for number in range(2 * MANY)}


async def test_without_the_lane_requests_beside_one_that_is_refused_do_not_wait_in_vain(
    place: Place,
) -> None:
    """Check that they end at once, some of them with `ConnectionLost`.

    Without the fast lane it is unknown which of them the broker dropped, and none may run twice.
    """
    async with (
        place.bus("shelf") as owner,
        owner.serving(shelf),
        place.bus("desk", fastlane=False) as desk,
    ):
        before = [desk.request(Find(number=number), timeout=PATIENCE) for number in range(MANY)]
        behind = [
            desk.request(Find(number=number), timeout=PATIENCE) for number in range(MANY, 2 * MANY)
        ]
        found = await outcomes(*before, desk.request(Hide(), timeout=PATIENCE), *behind)
    assert [type(each) for each in found].count(PermissionDenied) == 1
    assert {type(each) for each in found} <= {Found, PermissionDenied, ConnectionLost}
    assert all(each.maybe_executed for each in found if isinstance(each, ConnectionLost))
    assert all(times == 1 for times in done.values())


@pytest.mark.parametrize("fastlane", [True, False], ids=["lane", "plain"])
async def test_jobs_beside_one_that_is_refused_are_done(place: Place, fastlane: bool) -> None:
    async with (
        place.bus("shelf") as owner,
        owner.serving(shelf),
        place.bus("desk", fastlane=fastlane) as desk,
    ):
        before = [desk.submit(Sort(number=number), timeout=PATIENCE) for number in range(MANY)]
        behind = [
            desk.submit(Sort(number=number), timeout=PATIENCE) for number in range(MANY, 2 * MANY)
        ]
        refused = [desk.submit(Burn(), timeout=PATIENCE) for _ in range(3)]
        submitted = await outcomes(*before, refused[0], refused[1], *behind, refused[2])
        assert [type(each) for each in submitted if isinstance(each, Exception)] == [
            PermissionDenied
        ] * 3
        jobs = [each for each in submitted if not isinstance(each, Exception)]
        results = [await job.result(timeout=PATIENCE) for job in jobs]
    assert sorted(each.number for each in results) == [*range(2 * MANY)]
    assert done == {f"sort {number}": 1 for number in range(2 * MANY)}, (
        "sent again, and absorbed by the inbox"
    )


@pytest.mark.parametrize("fastlane", [True, False], ids=["lane", "plain"])
async def test_what_was_taken_before_a_right_was_revoked_is_not_said_to_be_unsent(
    place: Place, fastlane: bool
) -> None:
    """Check that these requests fail with `maybe_executed`.

    They have the same address as the refused publish, and the broker's refusal names no message.
    """
    held.add("all")
    async with (
        place.bus("shelf") as owner,
        owner.serving(shelf),
        place.bus("desk", fastlane=fastlane) as desk,
    ):
        await allow(place, "shelf[.].*")
        calls = [
            desk.request(Hide(), timeout=PATIENCE),
            desk.request(Find(number=1), timeout=PATIENCE),
        ]
        taken = asyncio.gather(*calls, return_exceptions=True)
        await until(lambda: done == {"hide": 1, "find 1": 1}, "both to be handled")
        await allow(place, "shelf[.]find[.].*|other[.].*")
        for number in range(REMEMBERED):
            await ask_nobody(desk, f"other.{number}")
        with pytest.raises(PermissionDenied, match=TOPIC.format("hide", "bus.requests")) as told:
            await desk.request(Hide(), timeout=PATIENCE)
        assert not told.value.maybe_executed
        held.clear()
        errors = [each for each in await taken if isinstance(each, BusError)]
    assert [each for each in errors if not each.maybe_executed] == []
    assert done == {"hide": 1, "find 1": 1}


async def allow(place: Place, keys: str) -> None:
    """Let the desk send requests only with routing keys that match a pattern."""
    topics = {"exchange": "bus.requests", "write": f"^({keys})$", "read": ""}
    await place.api.call("PUT", f"topic-permissions/{place.vhost}/desk", topics)


async def ask_nobody(desk: Bus, key: str) -> None:
    asked = Envelope(
        id=new_id(), type="other.v1", role="request", source="desk", body=b"{}", timestamp=0
    )
    await desk._transport.send(
        asked,
        Address(exchange="bus.requests", routing_key=key, mandatory=False, confirmed=False),
        timeout=PATIENCE,
    )
