"""The tables of docs/reference/topology.md, as a program in another language follows them."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import aio_pika
import pytest

from bus import Bus
from bus.operations.brokers.broker import Broker
from bus.operations.topology.apply import plan
from bus.runtime.requirements import required_by
from tests.integration.ledger import Place, router

PAGE = Path(__file__).parents[2] / "docs/reference/topology.md"
NAMES = {
    "<service>.requests.<operation>.v<n>": ["books.requests.open.v1"],
    "<service>.<operation>.v<n>": ["books.open.v1"],
    "<service>.jobs.<job>.v<n>": ["books.jobs.close.v1"],
    "<service>.<job>.v<n>": ["books.close.v1"],
    "<subscriber>.events.<event>.v<n>": ["books.events.books.closed.v1"],
    "<event>.v<n>": ["books.closed.v1"],
    "<work queue>": ["books.jobs.close.v1", "books.events.books.closed.v1"],
    "<delay>": ["1s", "30s"],
    "<service>": ["books"],
    "<subscriber>": ["books"],
}
"""The names of the service `books` for the names in the tables, the longest first."""
OTHER_KINDS = ("<subscription>", "<queue>", "<instance>")
"""Placeholders of kinds of queues that this service does not have at rest."""


@pytest.fixture
def place(shared_broker: Broker, vhost_url: str) -> Place:
    return Place(shared_broker, vhost_url)


def table(heading: str) -> list[list[str]]:
    """Return the cells below a heading, without the head of the table."""
    section = (
        PAGE.read_text(encoding="utf-8").split(f"### {heading}\n")[1].split("<!--")[0].split("#")[0]
    )
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines[2:]]


def named(cells: list[str]) -> Iterator[list[str]]:
    """Yield a row for each combination of names that the placeholders stand for."""
    text = "|".join(cells)
    found = next((name for name in NAMES if name in text), None)
    if found is None:
        yield cells
        return
    for name in NAMES[found]:
        yield from named(text.replace(found, name).split("|"))


def rows(heading: str) -> list[list[str]]:
    ours = [row for row in table(heading) if not any(name in str(row) for name in OTHER_KINDS)]
    return [each for row in ours for each in named(row)]


def code(cell: str) -> str:
    found = re.fullmatch("`([^`]+)`", cell)
    return found[1] if found else ""


def arguments_of(cell: str, delays: Mapping[str, int], name: str) -> dict[str, str | int]:
    parts = (part.partition(": ") for part in cell.split("<br>") if part)
    delay = delays.get(name.rpartition(".")[2], 0)
    return {
        code(key): code(value) or (delay if value == "the delay" else int(value))
        for key, _, value in parts
    }


async def declare_the_tables(place: Place) -> None:
    """Declare with raw AMQP what the tables say, and nothing that they do not say."""
    delays = {code(name): int(wait) for name, wait in table("Delays")}
    declared = set()
    connection = await place.connect()
    async with connection, connection.channel() as channel:
        for name, kind, arguments, _ in rows("Exchanges"):
            await channel.declare_exchange(
                code(name),
                aio_pika.ExchangeType(kind),
                durable=True,
                arguments=dict(arguments_of(arguments, delays, "")),
            )
        for cell, durable, exclusive, arguments, purpose in rows("Queues"):
            name = code(cell)
            if "`BUS_" in purpose:
                continue  # another setting than the default
            assert name not in declared
            declared.add(name)
            await channel.declare_queue(
                name,
                durable=durable == "yes",
                exclusive=exclusive == "yes",
                arguments=dict(arguments_of(arguments, delays, name)),
            )
        for queue, exchange, key in rows("Bindings"):
            bound = await channel.get_queue(code(queue), ensure=False)
            await bound.bind(code(exchange), code(key))


async def test_a_worker_starts_on_what_another_program_declared_by_the_tables(place: Place) -> None:
    await declare_the_tables(place)
    report = await plan(required_by([router], place.settings), place.settings)
    assert report.differences == ()
    async with Bus("books", settings=place.settings) as service, service.serving(router):
        assert service.ready
