"""Run the conformance and integration tests on each available RabbitMQ, and print the results.

usage: python scripts/test_brokers.py [node | IMAGE ...]

`node` is the RabbitMQ that is installed on this machine, started as a private node. IMAGE is a
container image, which is pulled if it is missing. Without an argument the tests run on all
`BROKERS`. If a broker is not available, the script prints the reason, and this is not a failure.
The exit code is 1 if a test failed, and 69 if no broker was available.
"""

import asyncio
import importlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bus.errors import BusError, ConfigurationError
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.docker import engine_answers
from bus.operations.brokers.installation import find_installation
from bus.operations.brokers.private_node import PrivateNode
from bus.transports.rabbitmq.handshake import probe

ROOT = Path(__file__).parents[1]
BROKERS = ("node", "rabbitmq:4-management", "rabbitmq:4.3-management")
SUITES = ("tests/conformance", "tests/integration")
# Each test process starts its own broker: some tests raise alarms, which affect a whole broker.
PROCESSES = 2
# pytest's options that select the tests, and a description of the tests that are left out. The
# tests that are left out in a container run on `node`.
ON_NODE = ["-k", "not memory"], "tests that run in memory"
IN_CONTAINER = ["-m", "broker and not private_node"], "tests without RabbitMQ, or on private nodes"
RYUK_OFF = "TESTCONTAINERS_RYUK_DISABLED"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of the tests on one broker."""

    name: str
    passed: bool | None
    """True if the tests passed; None if the broker was not available."""
    detail: str


def broker_named(name: str) -> Broker:
    """Return the broker, which is not started yet. Raise `BusError` if it is not available."""
    if name == "node":
        if installation := find_installation(os.environ):
            return PrivateNode(installation)
        raise ConfigurationError("rabbitmq-server is missing. Install it or set RABBITMQ_HOME.")
    if not engine_answers(os.environ):
        raise ConfigurationError("no Docker engine answers. Start one.")
    without_needless_reaper()
    broker: Broker = importlib.import_module("bus.operations.brokers.container").ContainerBroker(
        name
    )
    return broker


def without_needless_reaper() -> None:
    """Disable testcontainers' cleanup container, ryuk, if its image cannot be pulled.

    The tests do not need ryuk, because they stop their containers themselves.
    """
    if RYUK_OFF in os.environ:
        return
    # Import these modules only here: they take a second to load, and belong to an extra.
    docker, config = (
        importlib.import_module("docker"),
        importlib.import_module("testcontainers.core.config").testcontainers_config,
    )
    client = docker.from_env()
    try:
        client.images.get(config.ryuk_image)
    except docker.errors.ImageNotFound:
        try:
            client.images.pull(*config.ryuk_image.split(":"))
        except docker.errors.APIError:
            os.environ[RYUK_OFF] = "true"
            config.ryuk_disabled = True
    finally:
        client.close()


async def version_of(broker: Broker) -> str:
    """Start the broker, return its version, and stop it.

    If the broker is missing, this raises an error before any test runs.
    """
    try:
        await broker.start()
        # Read the version over AMQP: directly after the start, the management API has no overview.
        return (await probe(broker.url)).version
    finally:
        await broker.stop()


def run_on(name: str) -> Outcome:
    """Run the tests on one broker, and print pytest's output."""
    print(f"test-brokers: {name}", flush=True)
    try:
        version = asyncio.run(version_of(broker_named(name)))
    except (BusError, ImportError) as error:
        print(f"test-brokers: {name} is not available: {error}\n", flush=True)
        return Outcome(name=name, passed=None, detail=f"not available: {error}")
    print(f"test-brokers: {name} is RabbitMQ {version}", flush=True)
    chosen, left_out = ON_NODE if name == "node" else IN_CONTAINER
    print(f"test-brokers: left out: {left_out}", flush=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BUS_")}
    environment |= (
        {"BUS_TEST_BROKER": "node"}
        if name == "node"
        else {"BUS_TEST_BROKER": "testcontainers", "BUS_TEST_IMAGE": name}
    )
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(PROCESSES), *chosen, *SUITES]
    began, last = time.monotonic(), ""
    with subprocess.Popen(  # noqa: S603 - a fixed command
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.strip(" =\n") or last
    print(flush=True)
    if process.returncode:
        last = (
            last or f"pytest ended with {process.returncode} after {time.monotonic() - began:.0f} s"
        )
    return Outcome(name=name, passed=process.returncode == 0, detail=f"RabbitMQ {version}: {last}")


def main(names: list[str]) -> int:
    """Run the tests on each broker, print the results, and return the exit code."""
    outcomes = [run_on(name) for name in names or BROKERS]
    for each in outcomes:
        word = {True: "passed", False: "FAILED", None: "skipped"}[each.passed]
        print(f"test-brokers: {word:8} {each.name:24} {each.detail}")
    if all(each.passed is None for each in outcomes):
        return os.EX_UNAVAILABLE
    return int(any(each.passed is False for each in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
