"""Run the conformance and integration suites on each RabbitMQ that can be had here, and say which passed.

usage: python scripts/test_brokers.py [node | IMAGE ...]

`node` is this machine's own RabbitMQ, started as a private node; an image is fetched where it is not here. Without an
argument: all of `BROKERS`. One that cannot be had is told with the reason and fails nothing; the exit code is 1 where
one that was had failed, 69 where none could be had.
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
PROCESSES = 2  # each starts a broker of its own, since tests raise alarms, which are the whole broker's
# What is chosen, and what that leaves out.
ON_NODE = ["-k", "not memory"], "what runs in memory"
IN_CONTAINER = ["-m", "broker and not private_node"], "what needs no RabbitMQ, or brings this machine's own; `node` has both"
RYUK_OFF = "TESTCONTAINERS_RYUK_DISABLED"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is said of one broker at the end."""

    name: str
    passed: bool | None
    """None: it could not be had."""
    detail: str


def broker_named(name: str) -> Broker:
    """The broker, not started; `BusError` says why it cannot be had."""
    if name == "node":
        if installation := find_installation(os.environ):
            return PrivateNode(installation)
        raise ConfigurationError("this machine has no rabbitmq-server")
    if not engine_answers(os.environ):
        raise ConfigurationError("no Docker engine answers")
    without_needless_reaper()
    broker: Broker = importlib.import_module("bus.operations.brokers.container").ContainerBroker(name)
    return broker


def without_needless_reaper() -> None:
    """Let testcontainers do without ryuk, its clearer-up, where its image cannot be had; the tests end what they start."""
    if RYUK_OFF in os.environ:
        return
    # By name: they take a second to load, and come with an extra.
    docker, config = importlib.import_module("docker"), importlib.import_module("testcontainers.core.config").testcontainers_config
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
    """Its version; it is started for that and stopped, so that one which cannot be had fails here and no test does."""
    try:
        await broker.start()
        # By AMQP: the management API gives no overview in its first moments.
        return (await probe(broker.url)).version
    finally:
        await broker.stop()


def run_on(name: str) -> Outcome:
    """Both suites on one broker; pytest's words pass through."""
    print(f"test-brokers: {name}", flush=True)
    try:
        version = asyncio.run(version_of(broker_named(name)))
    except (BusError, ImportError) as error:
        print(f"test-brokers: {name} cannot be had: {error}\n", flush=True)
        return Outcome(name=name, passed=None, detail=f"could not be had: {error}")
    print(f"test-brokers: {name} is RabbitMQ {version}", flush=True)
    chosen, left_out = ON_NODE if name == "node" else IN_CONTAINER
    print(f"test-brokers: left out: {left_out}", flush=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BUS_")}
    environment |= {"BUS_TEST_BROKER": "node"} if name == "node" else {"BUS_TEST_BROKER": "testcontainers", "BUS_TEST_IMAGE": name}
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(PROCESSES), *chosen, *SUITES]
    began, last = time.monotonic(), ""
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603  a fixed command
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.strip(" =\n") or last
    print(flush=True)
    if process.returncode:
        last = last or f"pytest ended with {process.returncode} after {time.monotonic() - began:.0f} s"
    return Outcome(name=name, passed=process.returncode == 0, detail=f"RabbitMQ {version}: {last}")


def main(names: list[str]) -> int:
    """The exit code."""
    outcomes = [run_on(name) for name in names or BROKERS]
    for each in outcomes:
        word = {True: "passed", False: "FAILED", None: "not had"}[each.passed]
        print(f"test-brokers: {word:8} {each.name:24} {each.detail}")
    if all(each.passed is None for each in outcomes):
        return os.EX_UNAVAILABLE
    return int(any(each.passed is False for each in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
