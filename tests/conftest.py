"""Fixtures that every test may ask for. A broker is started once a run (once a worker under xdist), when one is asked for.

broker          the URL of a RabbitMQ that all tests share: do not kill it
vhost_url       the same with a virtual host of this test's own: nothing in it, removed afterwards
shared_broker   the `Broker` itself, for its management API
private_node    a RabbitMQ node that no other test uses meanwhile, started: kill it, pause it, restart it. The next test gets the
                same one, with what was declared in it, and started again where it had ended: a start costs 5 s of processor
"""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Iterator
from typing import cast

import pytest

from bus.operations.brokers import private_node as private_node_room
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.installation import Installation, find_installation
from bus.operations.brokers.private_node import PrivateNode
from bus.operations.brokers.select import INSTALL
from tests.broker import START, fresh_vhost, running_broker
from tests.chaos.table import PROPERTY, Row, table
from tests.isolation import isolate

isolate(os.environ)  # here, before anything reads the environment
private_node_room.START_TIMEOUT_SECONDS = START
gc.disable()  # until all is imported

NEEDS_BROKER = {"broker", "vhost_url", "shared_broker", "private_node"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a RabbitMQ, so that `-m "not broker"` leaves it out, and what needs one that it may kill."""
    for item in items:
        if NEEDS_BROKER.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.broker)
        if "private_node" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.private_node)


def pytest_collection_finish() -> None:
    """What has been imported stays, and no collection of garbage needs to look through it, which takes 0.2 s each time."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The ledger of `tests/chaos`, where its campaigns ran; here, because under xdist only this conftest sees all of them."""
    reports = [
        report
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport)
    ]
    rows = [
        value
        for report in reports
        if report.when == "call"
        for name, value in report.user_properties
        if name == PROPERTY
    ]
    if rows:
        terminalreporter.section("the ledger", sep="-")
        for line in table(cast("list[Row]", rows)):
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def shared_broker() -> Iterator[Broker]:
    with running_broker() as broker:
        yield broker


@pytest.fixture(scope="session")
def broker(shared_broker: Broker) -> str:
    return shared_broker.url


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker is there, so who cannot connect at once is only waiting for the machine."""
    monkeypatch.setenv("BUS_CONNECT_TIMEOUT", "30")


@pytest.fixture
def vhost_url(shared_broker: Broker, patience: None) -> Iterator[str]:
    with fresh_vhost(shared_broker) as url:
        yield url


@pytest.fixture(scope="session")
def installation() -> Installation:
    found = find_installation(os.environ)
    assert found, INSTALL
    return found


@pytest.fixture(scope="session")
def lasting_node(installation: Installation) -> Iterator[PrivateNode]:
    node = PrivateNode(installation)
    yield node
    asyncio.run(node.stop())


@pytest.fixture
async def private_node(lasting_node: PrivateNode, patience: None) -> AsyncIterator[PrivateNode]:
    await lasting_node.start()
    yield lasting_node
    await lasting_node.resume()
