import pytest

from bus import Event, Job, Message, Request, Router, contract
from bus.contracts.contract import Catalog
from bus.messaging.topology.declarations import reply_topology
from bus.messaging.topology.model import Queue, Topology, merge
from bus.messaging.topology.names import (
    RETRY_DELAYS,
    parse_queue_name,
    routing_key_of,
    service_queues,
)

catalog = Catalog()


class Place(Message):
    shelf: str


@contract("library.find", version=1, catalog=catalog)
class Find(Request[Place]):
    title: str


@contract("library.scan.all-pages", version=12, catalog=catalog)
class Scan(Job[None]):
    title: str


@contract("library.dead.found", version=1, catalog=catalog)
class Found(Event):
    title: str


def everything() -> Topology:
    router = Router("library")

    @router.request(Find)
    async def find(_request: Find) -> Place:
        return Place(shelf="A3")

    @router.job(Scan)
    async def scan(_job: Scan) -> None:
        pass

    for subscription in (None, "index", "re-tell"):

        @router.event(Found, subscription=subscription)
        async def on_found(_event: Found) -> None:
            pass

    return merge(
        [
            *(needs for _, needs in router.topology().values()),
            reply_topology("library", "host.example-4711-0a1b"),
        ]
    )


QUEUES = everything().queues


@pytest.mark.parametrize("made", QUEUES, ids=lambda queue: queue.name)
def test_every_name_that_the_topology_makes_is_read_back(made: Queue) -> None:
    read = parse_queue_name(made.name)
    assert read
    assert (read.name, read.service, read.role) == (made.name, "library", made.role)


@pytest.mark.parametrize("kind", ["requests", "jobs", "events"])
def test_the_name_of_a_work_queue_contains_its_routing_key(kind: str) -> None:
    bindings = [each for each in everything().bindings if each.exchange == f"bus.{kind}"]
    assert bindings
    assert [routing_key_of(each.queue) for each in bindings] == [
        each.routing_key for each in bindings
    ]
    assert routing_key_of("library.retry.5s") is None


@pytest.mark.parametrize(
    ("name", "work_queue"),
    [
        ("library.jobs.scan.all-pages.v12.dead", "library.jobs.scan.all-pages.v12"),
        ("library.unroutable.dead", None),
    ],
)
def test_dead_letters_know_whose_they_are(name: str, work_queue: str | None) -> None:
    read = parse_queue_name(name)
    assert read
    assert read.work_queue == work_queue


@pytest.mark.parametrize(
    "name",
    [
        "celery",
        "amq.gen-JzTY20BRgKO",
        "library.jobs.scan",
        "library.retry.7s",
        "library.requests.find.v1.dead",
        "Library.jobs.scan.v1",
        "library.jobs.scan.v1\n",
        "library.jobs.scan.v1.dead.dead",
        "unroutable.dead",
        ".unroutable.dead",
        "",
    ],
)
def test_other_peoples_queues_are_none_of_ours(name: str) -> None:
    assert parse_queue_name(name) is None


def test_what_any_service_may_have_is_a_tier_or_what_came_back_in_vain() -> None:
    read = [parse_queue_name(name) for name in service_queues("library")]
    assert [each and each.role for each in read] == [*("retry" for _ in RETRY_DELAYS), "dead"]
