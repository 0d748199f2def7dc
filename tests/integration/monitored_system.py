"""A broker, services and a Prometheus that reads both, for the tests of examples/monitoring."""

import asyncio
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr

from bus import Bus, Settings
from bus.contracts.contract import encode
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.topology.addresses import address_of
from bus.operations.brokers.installation import Installation
from bus.operations.brokers.ports import LOOPBACK, free_ports
from bus.operations.brokers.private_node import PrivateNode
from tests.integration.command import PATIENT, ROOT
from tests.integration.monitored_services import Pack, Sell
from tests.polling import until
from tests.prometheus import Prometheus, running_prometheus

__all__ = ["MONITORING", "System", "running_system"]

MONITORING = ROOT / "examples/monitoring"
SERVICES = [f"tests.integration.monitored_services:{name}" for name in ("grocer", "till")]
FAULTS = {
    "BUS_CHAOS": "grocer.weigh: latency=1ms; for=10m",
    "BUS_SERVICES__GROCER__HEDGE_AFTER": "0.02",
    "BUS_SERVICES__GROCER__BREAKER_OPEN_TIME": "1",
}
"""Variables of the services that make each policy act."""
SECONDS = 60.0


class System:
    """The running system, of which each part can be asked and used."""

    def __init__(self, node: PrivateNode, prometheus: Prometheus) -> None:
        self._node = node
        self.prometheus = prometheus

    @property
    def url(self) -> str:
        """The address of the broker."""
        return self._node.url

    def missing(self, queries: dict[str, str]) -> dict[str, str]:
        """Return the queries without a value. The services work until each has one, or it is late.

        A value is not missing if it is 0, but it is if it is NaN (a quantile of no values).
        """
        return asyncio.run(self._work_until(queries))

    async def _work_until(self, queries: dict[str, str]) -> dict[str, str]:
        left, deadline = dict(queries), time.monotonic() + SECONDS
        settings = Settings(url=SecretStr(self.url), discovery="off")
        async with Bus("desk", settings=settings) as desk:
            while True:
                left = {name: query for name, query in left.items() if not self._has_value(query)}
                if not left or time.monotonic() > deadline:
                    return left
                await self._work(desk)

    def _has_value(self, query: str) -> bool:
        return any(not math.isnan(value) for _, value in self.prometheus.query(query))

    async def _work(self, desk: Bus) -> None:
        """Make the services succeed, fail, retry, dead-letter, and receive a message twice."""
        await desk.submit(Sell(title="Emma"))
        await desk.submit(Pack(title="Torn"))
        copy = Envelope(
            id=new_id(),
            type="grocer.pack.v1",
            role="job",
            source="desk",
            body=encode(Pack(title="Emma")),
        )
        for _ in range(2):
            await desk._transport.send(copy, address_of("job", copy.type), timeout=SECONDS)


@contextmanager
def running_system(installation: Installation, folder: Path) -> Iterator[System]:
    """Run the broker, the services and Prometheus until the end of the block."""
    plugin, health, exporter = free_ports(3)
    node = PrivateNode(
        installation,
        plugins=("rabbitmq_prometheus",),
        config={"prometheus.tcp.ip": LOOPBACK, "prometheus.tcp.port": str(plugin)},
    )
    ports = {
        "trunkline": health,
        "trunkline-exporter": exporter,
        "rabbitmq": plugin,
        "rabbitmq-queues": plugin,
    }
    configuration = prometheus_file(folder, ports)
    with running_prometheus(configuration, folder) as prometheus:
        try:
            asyncio.run(node.start())
            services = running_bus(
                folder, "run", *SERVICES, BUS_URL=node.url, BUS_HEALTH_PORT=str(health), **FAULTS
            )
            asking = ("exporter", "--port", str(exporter), "--interval", "0", "--window", "0.2")
            with services, running_bus(folder, *asking, BUS_URL=node.url):
                asyncio.run(until(lambda: prometheus.is_ready, "Prometheus", SECONDS))
                ready = "sum(trunkline_ready) == 2"
                asyncio.run(until(lambda: prometheus.query(ready), "the services", SECONDS))
                # The services connect again by themselves, and count the lost connections.
                asyncio.run(node.ctl("close_all_connections", "a test", timeout=SECONDS))
                yield System(node, prometheus)
        finally:
            asyncio.run(node.stop())


def prometheus_file(folder: Path, ports: dict[str, int]) -> Path:
    """Write the project's configuration with short intervals and the port of each job."""
    configuration: dict[str, Any] = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(MONITORING / name) for name in configuration["rule_files"]]
    for job in configuration["scrape_configs"]:
        job["static_configs"] = [{"targets": [f"{LOOPBACK}:{ports[job['job_name']]}"]}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    return path


@contextmanager
def running_bus(folder: Path, *arguments: str, **variables: str) -> Iterator[None]:
    """Run a command in a process of its own, as an operator does."""
    with (folder / f"{arguments[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bus.cli", *arguments],
            cwd=ROOT,
            env={**os.environ, **PATIENT, "BUS_SERVICE_VERSION": "1.2.3", **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()
