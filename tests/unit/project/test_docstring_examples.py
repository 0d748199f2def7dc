"""Run the examples in the docstrings of `bus`. A bus of an example uses the broker in memory."""

import ast
import asyncio
import doctest
import inspect
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faststream import FastStream
from faststream.rabbit import RabbitBroker
from prometheus_client import CollectorRegistry

import bus
from bus.contracts.contract import Catalog
from bus.integrations.faststream import attach
from bus.integrations.prometheus import collector
from bus.messaging.handler import Handler
from bus.testing import MemoryBuses, MemoryTransport, SyncMemoryBuses
from bus.testing.handling import HandlerCall

ROOT = Path(bus.__file__).parent
SETTINGS = bus.Settings(auth="off")


@dataclass(frozen=True)
class Docstring:
    """A docstring with examples."""

    place: str
    """File and line, such as `runtime/bus.py:50`."""
    examples: tuple[doctest.Example, ...]


def docstrings() -> Iterator[Docstring]:
    parser = doctest.DocTestParser()
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
                continue
            if isinstance(text := node.value.value, str) and ">>> " in text:
                place = f"{path.relative_to(ROOT)}:{node.lineno}"
                yield Docstring(place, tuple(parser.get_examples(inspect.cleandoc(text))))


DOCSTRINGS = [*docstrings()]

# --- The names that the examples use and do not define ---

contract = partial(bus.contract, catalog=Catalog())


class Invoice(bus.Message):
    number: int = 0


class Summary(bus.Message):
    count: int = 0


@contract("billing.get-invoice", version=1, idempotent=True)
class GetInvoice(bus.Request[Invoice]):
    number: int


@contract("billing.close-month", version=1)
class CloseMonth(bus.Job[Summary]):
    month: date


@contract("documentation.get-transcript", version=1)
class GetTranscript(bus.Request[Summary]):
    transcript_id: int


@contract("desk.ask", version=1)
class Ask(bus.Request[Summary]):
    text: str = ""


class Place(bus.Message):
    shelf: str


@contract("library.find", version=1)
class Find(bus.Request[Place]):
    title: str


async def find(request: Find) -> Place:
    return Place(shelf="A3")


@contract("billing.sent", version=1)
class InvoiceSent(bus.Event):
    number: str


class Pool:
    """A resource of handlers."""


async def summarize(message: Any, context: bus.Context) -> Summary:
    await context.progress(1, "done")
    return Summary()


@asynccontextmanager
async def names_for(place: str) -> AsyncIterator[dict[str, Any]]:
    """Yield the names for the examples of one docstring. The services run on one broker."""
    desk = bus.Router("desk")
    desk.request(Ask)(summarize)
    async with MemoryBuses() as buses:
        for kind, service in ((CloseMonth, "billing"), (GetTranscript, "documentation")):
            router = bus.Router(service)
            register: Any = router.job if kind is CloseMonth else router.request
            register(kind)(summarize)
            await buses.serve(await buses.bus(service), router)

        def connected(service: str) -> bus.Bus:
            transport = MemoryTransport(buses.broker)
            return bus.Bus(service, settings=SETTINGS, transport=transport)

        await (await buses.bus("billing")).publish(InvoiceSent(number="7"))
        own_router = place.startswith(("testing", "integrations"))
        yield {
            **{name: getattr(bus, name) for name in dir(bus) if not name.startswith("_")},
            **{each.__name__: each for each in (date, Decimal, Pool, MemoryBuses)},
            **{each.__name__: each for each in (Invoice, Summary, GetInvoice, CloseMonth)},
            "GetTranscript": GetTranscript,
            "Ask": lambda _: Ask(),
            "FastStream": FastStream,
            "Handler": Handler,
            "logging": logging,
            "id": 7,
            "month": date(2026, 1, 1),
            "count": Counter[str](),
            "open_pool": Pool,
            "contract": partial(bus.contract, catalog=Catalog()),
            "Bus": connected,
            "bus": await buses.bus("client"),
            "router": desk if own_router else bus.Router("billing"),
            "broker": RabbitBroker(),
            "Find": Find,
            "Place": Place,
            "find": find,
            "handle": HandlerCall(buses),
            "InvoiceSent": InvoiceSent,
            "published": buses.published,
            "attach": partial(attach, settings=SETTINGS),
            "REGISTRY": CollectorRegistry(),
            "collector": collector,
        }


def run_synchronous(docstring: Docstring) -> None:
    """Run the examples of a `SyncBus` in a thread without an event loop."""
    documentation, desk = bus.Router("documentation"), bus.Router("desk")
    documentation.request(GetTranscript)(summarize)
    desk.request(Ask)(summarize)
    with SyncMemoryBuses() as buses:

        def connected(service: str) -> bus.SyncBus:
            created = bus.SyncBus(service)
            buses.connect(created)
            return created

        buses.serve(documentation)
        names: dict[str, Any] = {
            "SyncBus": connected,
            "SyncMemoryBuses": SyncMemoryBuses,
            "GetTranscript": GetTranscript,
            "Ask": lambda _: Ask(),
            "id": 7,
            "bus": bus.SyncBus("website"),
            "router": desk,
        }
        for example in docstring.examples:
            assert not example.want, "an example prints nothing: write a comment"
            exec(compile(example.source, docstring.place, "exec", dont_inherit=True), names)


def test_the_docstrings_of_the_bus_have_examples() -> None:
    assert sum(len(each.examples) for each in DOCSTRINGS) >= 15


@pytest.mark.parametrize("docstring", DOCSTRINGS, ids=lambda each: each.place)
def test_the_examples_of_a_docstring_run(docstring: Docstring) -> None:
    if "sync" in docstring.place:
        run_synchronous(docstring)
        return

    async def run() -> None:
        async with names_for(docstring.place) as names:
            for example in docstring.examples:
                assert not example.want, "an example prints nothing: write a comment"
                flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
                code = compile(example.source, docstring.place, "exec", flags, dont_inherit=True)
                # `eval` runs the statements. If they await, it returns a coroutine that runs them.
                waiting: Any = eval(code, names)
                if waiting is not None:
                    await waiting

    asyncio.run(run())
