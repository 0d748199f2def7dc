"""Fixtures for all tests. A broker is started once a run (once a worker under xdist), at first use.

broker          The URL of a RabbitMQ that all tests share. Do not kill it.
vhost_url       The same with a virtual host of the test, which is empty, and removed afterwards.
shared_broker   The `Broker` itself, for its management API.
private_node    A running RabbitMQ node that no other test uses at the same time. A test may kill,
                pause or restart it. The next test gets the same node with its declared queues,
                because a start takes 5 s of processor time. It is started again if it had ended.
postgres_url    The URL of an empty PostgreSQL database of the test, which is removed afterwards.
private_postgres  A running PostgreSQL cluster that no other test uses at the same time. A test may
                kill, stop and start it. The next test gets the same cluster.
"""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest

from bus.operations.brokers import private_node as private_node_module
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.installation import Installation, find_installation
from bus.operations.brokers.private_node import PrivateNode
from bus.operations.brokers.select import INSTALL
from bus.testing.rabbitmq import running_broker
from tests.broker import START, fresh_vhost
from tests.chaos.table import PROPERTY, Row, table
from tests.isolation import isolate
from tests.postgres import PostgresCluster, find_programs

pytest_plugins = ["pytester"]

isolate(os.environ)  # before any code reads the environment
private_node_module.START_TIMEOUT_SECONDS = START
gc.disable()  # until all modules are imported

NEEDS_BROKER = {"broker", "vhost_url", "shared_broker", "private_node"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that need a RabbitMQ, for `-m "not broker"`, and those that may kill a node."""
    for item in items:
        if NEEDS_BROKER.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.broker)
        if "private_node" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.private_node)


def pytest_collection_finish() -> None:
    """Exclude imported objects from garbage collection: each traversal of them takes 0.2 s."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the ledger of `tests/chaos` if its campaigns ran.

    Under xdist only this conftest receives the reports of all campaigns.
    """
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
    with running_broker(os.environ) as broker:
        yield broker


@pytest.fixture(scope="session")
def broker(shared_broker: Broker) -> str:
    return shared_broker.url


@pytest.fixture
def shown_message_values() -> None:
    """Replace the fixture of this name in `bus.testing.plugin`: these tests check hidden values."""


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the connect timeout: the broker is running, so only a busy machine delays a connect."""
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


@pytest.fixture(scope="session")
def postgres_programs() -> Path:
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: no program `initdb` was found.")
    return programs


@pytest.fixture(scope="session")
def postgres(postgres_programs: Path) -> Iterator[PostgresCluster]:
    cluster = PostgresCluster(postgres_programs)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def postgres_url(postgres: PostgresCluster) -> Iterator[str]:
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture(scope="session")
def lasting_postgres(postgres_programs: Path) -> Iterator[PostgresCluster]:
    cluster = PostgresCluster(postgres_programs)
    yield cluster
    cluster.stop()


@pytest.fixture
def private_postgres(lasting_postgres: PostgresCluster) -> PostgresCluster:
    lasting_postgres.start()
    return lasting_postgres
