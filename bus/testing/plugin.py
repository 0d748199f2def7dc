"""The pytest plugin: fixtures for the tests of a service.

pytest loads this module into each test run of an environment in which Trunkline is installed.
Therefore it takes the names of the bus from `bus.testing`, which loads a name at its first use.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from bus import testing
from bus.errors import BusError
from bus.testing.shell import shell_settings

if TYPE_CHECKING:
    from bus.operations.brokers.broker import Broker
    from bus.testing import HandlerCall, MemoryBuses, RabbitMQ, SyncMemoryBuses

__all__ = [
    "broker",
    "buses",
    "dead",
    "handle",
    "published",
    "requested",
    "shared_broker",
    "shown_message_values",
    "skip_waits",
    "submitted",
    "sync_buses",
]

SHELL = shell_settings(os.environ)
"""The shell's settings of the bus. Code that runs later may set a variable for the tests."""
AUTH = "BUS_AUTH"
INSTALL = "Install it: pip install 'trunkline[testing]'."


def async_fixture(function: Callable[..., Any]) -> Any:
    """Return an asynchronous fixture. Without pytest-asyncio, return a fixture that fails."""
    try:
        pytest_asyncio = import_module("pytest_asyncio")  # it is not a dependency of the bus
    except ModuleNotFoundError:
        return _missing(function.__name__)
    return pytest_asyncio.fixture(function)


def _missing(name: str) -> Any:
    @pytest.fixture(name=name)
    def missing() -> None:
        text = f"the fixture `{name}` requires pytest-asyncio, which is not installed. {INSTALL}"
        pytest.fail(text, pytrace=False)

    return missing


@pytest.fixture(autouse=True)
def shown_message_values() -> Iterator[None]:
    """Let the repr of a message show its values, except those of `Sensitive` fields.

    A `conftest.py` that defines a fixture of this name turns this off.
    """
    sensitive = sys.modules.get("bus.contracts.sensitive")  # None if no test has imported the bus
    with sensitive.shown_values() if sensitive else nullcontext():
        yield


def hide_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the shell's settings until the test ends, except those that the tests have changed.

    Authentication is off, as for the buses of `buses`, unless the tests have turned it on.
    """
    for name, value in SHELL.items():
        if os.environ.get(name) == value:
            monkeypatch.delenv(name)
    if not os.environ.get(AUTH, "").strip():  # an empty variable is not set
        monkeypatch.setenv(AUTH, "off")


@async_fixture
async def buses(monkeypatch: pytest.MonkeyPatch) -> "AsyncIterator[MemoryBuses]":
    """Yield connected buses on one model broker, as `async with MemoryBuses()` does.

    The shell's variables `BUS_…` are hidden from the test, and authentication is off.
    """
    hide_shell(monkeypatch)
    is_virtual = isinstance(asyncio.get_running_loop(), testing.VirtualLoop)
    clock = testing.wall_clock if is_virtual else time.time
    async with testing.MemoryBuses(clock=clock) as opened:
        yield opened


@pytest.fixture
def sync_buses(monkeypatch: pytest.MonkeyPatch) -> "Iterator[SyncMemoryBuses]":
    """Yield connected buses on one model broker for a test of synchronous code.

    The shell's variables `BUS_…` are hidden from the test, and authentication is off.
    """
    hide_shell(monkeypatch)
    with testing.SyncMemoryBuses() as opened:
        yield opened


@async_fixture
async def skip_waits() -> None:
    """Run the test in virtual time: retry tiers, timeouts and sleeps take no time."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, testing.VirtualLoop):
        pytest.fail(
            f"the fixture `skip_waits` requires an asynchronous test and pytest-asyncio 1.4 or "
            f"later. Request the fixture by its name in the test. {INSTALL}",
            pytrace=False,
        )
    loop.skip_waits()


@pytest.fixture
def handle(buses: "MemoryBuses") -> "HandlerCall":
    """Return a function that calls one handler with a real `Context`."""
    return testing.HandlerCall(buses)


@pytest.fixture
def published(buses: "MemoryBuses") -> Callable[..., Any]:
    """Return `buses.published`: the events that the test has published."""
    return buses.published


@pytest.fixture
def submitted(buses: "MemoryBuses") -> Callable[..., Any]:
    """Return `buses.submitted`: the jobs that the test has submitted."""
    return buses.submitted


@pytest.fixture
def requested(buses: "MemoryBuses") -> Callable[..., Any]:
    """Return `buses.requested`: the requests that the test has sent."""
    return buses.requested


@pytest.fixture
def dead(buses: "MemoryBuses") -> Callable[..., Any]:
    """Return `buses.dead`: the dead letters of a contract or queue."""
    return buses.dead


@pytest.fixture(scope="session")
def shared_broker() -> "Iterator[Broker]":
    """Yield the RabbitMQ of this test run. It is started at its first use."""
    try:
        with testing.running_broker(testing.isolated(os.environ)) as started:
            yield started
    except BusError as error:
        advice = str(error).replace("BUS_URL", "BUS_TEST_URL")
        pytest.fail(f"the fixture `broker` cannot start a RabbitMQ: {advice}", pytrace=False)


@pytest.fixture
def broker(shared_broker: "Broker", monkeypatch: pytest.MonkeyPatch) -> "Iterator[RabbitMQ]":
    """Yield an empty virtual host on the RabbitMQ of this test run, with its `url`.

    If no RabbitMQ can be started, the test fails. It is never skipped. The shell's variables
    `BUS_…` are hidden from the test, except those that begin with `BUS_TEST_`, and authentication
    is off.
    """
    hide_shell(monkeypatch)
    with testing.virtual_host(shared_broker) as host:
        yield host


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of pytest-xdist which variables are the shell's.

    The process inherits also the variables that a `conftest.py` has set.
    """
    node.workerinput["bus_shell"] = SHELL


def pytest_configure(config: pytest.Config) -> None:
    """Take the shell's variables from the main process of pytest-xdist, if there is one."""
    given = getattr(config, "workerinput", {}).get("bus_shell")
    if given is not None:
        SHELL.clear()
        SHELL.update(given)


class VirtualLoops:
    """A plugin that gives a test a `VirtualLoop`, whichever loop the other tests have."""

    @pytest.hookimpl(wrapper=True, optionalhook=True)
    def pytest_asyncio_loop_factories(self) -> Generator[None, object, Mapping[str, Any]]:
        """Return the only loop of the test."""
        yield
        return {"virtual": testing.VirtualLoop}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None, object, object]:
    """Let pytest-asyncio choose a `VirtualLoop` for a test that requests `skip_waits`.

    The hook of pytest-asyncio is registered only while it chooses, because a permanent hook would
    change the loop of every test in the run.
    """
    if "skip_waits" not in metafunc.fixturenames:
        return (yield)
    plugins, loops = metafunc.config.pluginmanager, VirtualLoops()
    plugins.register(loops)
    try:
        return (yield)
    finally:
        plugins.unregister(loops)
