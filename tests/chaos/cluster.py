"""Three private nodes that form one cluster, with one name server and one cookie.

Clients list the nodes in `BUS_URL`, or connect through a balancer, which selects a node that
answers.
"""

import asyncio
import random
import secrets
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

from typing_extensions import override

from bus.errors import BusError
from bus.operations.brokers.installation import Installation
from bus.operations.brokers.ports import LOOPBACK, accepts, free_ports, speaks_amqp
from bus.testing.rabbitmq import with_vhost
from bus.transports.rabbitmq.handshake import probe
from tests.chaos.campaign import Played, Size, play_in
from tests.chaos.faults import JOBS, Fault
from tests.chaos.journal import ACKED, Entry
from tests.chaos.node import ChaosNode
from tests.chaos.proxy import FaultyProxy
from tests.chaos.scene import Scene

__all__ = ["ROUNDS", "Cluster", "Round", "rounds"]

CONFIG = {
    "cluster_partition_handling": "pause_minority",
    "net_ticktime": "15",
    "cluster_name": "chaos",
}
STUB = "#!/bin/sh\nexec sleep 2147483647\n"
"""Script instead of a node's own name server, which must be a process and does nothing."""
JOIN = 240.0


class ClusterNode(ChaosNode):
    """A node that finds the other nodes of its cluster."""

    def __init__(
        self, installation: Installation, *, cookie: str, names: int, config: Mapping[str, str]
    ) -> None:
        """Prepare the node.

        Args:
            installation: RabbitMQ installation to start.
            cookie: Erlang cookie of the cluster.
            names: Port of the name server of the cluster.
            config: Settings for `rabbitmq.conf`.
        """
        super().__init__(installation, config=config)
        self._cookie, self._names = cookie, names

    @property
    def name(self) -> str:
        """Name of the node in Erlang."""
        return self._name

    @override
    def _make_directory(self) -> None:
        super()._make_directory()
        cookie = self.directory / ".erlang.cookie"
        cookie.chmod(0o600)
        cookie.write_text(self._cookie, encoding="ascii")
        cookie.chmod(0o400)
        stub = self.directory / "no-name-server"
        stub.write_text(STUB, encoding="ascii")
        stub.chmod(0o700)
        self._installation = replace(self._installation, epmd=stub)

    @override
    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "ERL_EPMD_PORT": str(self._names)}


class Cluster:
    """A cluster of three nodes with one password."""

    def __init__(self, installation: Installation) -> None:
        (self._names,) = free_ports(1)
        cookie, password = secrets.token_hex(20), secrets.token_urlsafe(12)
        self.nodes = [
            ClusterNode(installation, cookie=cookie, names=self._names, config=CONFIG)
            for _ in range(3)
        ]
        for node in self.nodes:
            node._password = password
        self._cookie = cookie
        self._epmd = installation.epmd
        self._server: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        command = (self._epmd, "-port", str(self._names), "-address", LOOPBACK)
        self._server = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
        while not await asyncio.to_thread(accepts, self._names):
            await asyncio.sleep(0.05)
        try:
            await asyncio.gather(*(node.start() for node in self.nodes))
            for node in self.nodes[1:]:
                await node.ctl("stop_app", timeout=JOIN)
                await node.ctl("join_cluster", self.nodes[0].name, timeout=JOIN)
                await node.ctl("start_app", timeout=JOIN)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        for node in self.nodes:
            if node.running:
                await node.resume()
            await node.stop()
        if self._server is not None:
            self._server.kill()
            await self._server.wait()

    def way(self) -> "Balancer":
        """Return a proxy for the sender or the workers, which selects a node that answers."""
        return Balancer([node.port for node in self.nodes])

    async def leader(self, vhost: str, queue: str) -> ClusterNode:
        """Return the node that leads this quorum queue now."""
        for node in self.nodes:
            if node.running:
                rows = (
                    await node.ctl(
                        "list_queues", "--no-table-headers", "-p", vhost, "name", "leader"
                    )
                ).splitlines()
                name = next(
                    (row.split("\t")[1] for row in rows if row.startswith(f"{queue}\t")), ""
                )
                return next(each for each in self.nodes if each.name == name)
        raise AssertionError("no node of the cluster is running")

    async def isolate(self, node: ClusterNode) -> None:
        """Cut the node off: it and the other nodes get wrong cookies for each other."""
        await self._to_others(
            node, "erlang:set_cookie('{0}', wrong), erlang:disconnect_node('{0}')"
        )

    async def heal(self, node: ClusterNode) -> None:
        """Connect the node with the other nodes again."""
        await self._to_others(node, f"erlang:set_cookie('{{0}}', '{self._cookie}')")

    async def _to_others(self, node: ClusterNode, words: str) -> None:
        """Evaluate an Erlang expression on this node with the name of each other node.

        One call is enough for all of them, and each call would start an Erlang of its own.
        """
        names = [other.name for other in self.nodes if other is not node]
        await node.ctl("eval", ", ".join(words.format(name) for name in names) + ".")


class Balancer(FaultyProxy):
    """A proxy that sends connections to each node in turn, as a balancer with health checks.

    If a node does not answer, the next one gets the connection.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        super().__init__(LOOPBACK, ports[0])
        self._ports = [*ports]

    @override
    def target(self) -> tuple[str, int]:
        self._ports.append(self._ports.pop(0))
        return LOOPBACK, next(
            (port for port in self._ports if speaks_amqp(LOOPBACK, port)), self._ports[0]
        )


ROUNDS = ("leader-killed", "leader-isolated", "node-paused")
BALANCED = "leader-isolated"
"""Round in which the clients connect through the balancer. In the others they list the nodes."""

# --- Faults ---

DOWN = 5.0
"""Seconds for which a killed node stays down; the other nodes elect a leader in this time."""
APART = 10.0
UNANSWERING = 15.0
"""Seconds without an answer of a node; the other nodes consider it down earlier."""


def faults_of(cluster: Cluster) -> dict[str, Fault]:
    """Return the faults that strike the leader of the job queue."""

    async def kill(scene: Scene, chance: random.Random) -> None:
        node = await cluster.leader(scene.vhost, JOBS)
        await node.kill()
        await asyncio.sleep(DOWN)
        await node.start()

    async def isolate(scene: Scene, chance: random.Random) -> None:
        node = await cluster.leader(scene.vhost, JOBS)
        await cluster.isolate(node)
        await asyncio.sleep(APART)
        await cluster.heal(node)
        await whole(cluster)

    async def pause(scene: Scene, chance: random.Random) -> None:
        node = await cluster.leader(scene.vhost, JOBS)
        await node.pause()
        await asyncio.sleep(UNANSWERING)
        await node.resume()
        await whole(cluster)

    struck = partial(
        Fault, faults=1, workers=2, splits=True, resends=True, environment={"BUS_HEARTBEAT": "2"}
    )
    found = (
        struck(name="leader-killed", title="the queue's leader killed", strike=kill),
        struck(name="leader-isolated", title="the leader cut off", strike=isolate),
        struck(name="node-paused", title="the leader paused", strike=pause),
    )
    return {fault.name: fault for fault in found}


async def whole(cluster: Cluster) -> None:
    """Wait until every node accepts connections again.

    A node in the minority stops its broker, and later starts it by itself.
    """
    async with asyncio.timeout(JOIN):
        while not all(
            [await asyncio.to_thread(speaks_amqp, LOOPBACK, node.port) for node in cluster.nodes]
        ):
            await asyncio.sleep(0.2)


async def shared(cluster: Cluster, vhost: str) -> None:
    """Wait until every node accepts connections to this virtual host.

    A node that was down a moment ago learns of the virtual host later than the others.
    """
    async with asyncio.timeout(JOIN):
        for node in cluster.nodes:
            while True:
                try:
                    await probe(with_vhost(node.url, vhost))
                    break
                except BusError:
                    await asyncio.sleep(0.2)


@dataclass(frozen=True, kw_only=True)
class Round:
    """A fault, its campaign, and the longest time without a confirm."""

    fault: Fault
    played: Played
    gap: float
    """Seconds."""


async def rounds(
    cluster: Cluster,
    directory: Path,
    names: Sequence[str],
    *,
    messages: int,
    seed: int,
    timeout: float = 40,
) -> AsyncIterator[Round]:
    """Yield a round for each fault, one after the other."""
    faults = faults_of(cluster)
    for number, name in enumerate(names):
        place = directory / f"{number}-{name}"
        place.mkdir()
        size = Size(messages=messages, faults=1, seed=seed + number, timeout=timeout)
        async with Scene(
            cluster.nodes[0],
            place,
            environment=faults[name].environment,
            ways=cluster.way,
            hosts=() if name == BALANCED else [node.port for node in cluster.nodes],
        ) as scene:
            await shared(cluster, scene.vhost)
            played = await play_in(scene, faults[name], size)
            yield Round(fault=faults[name], played=played, gap=write_gap(scene.sends.entries))


def write_gap(sends: list[Entry]) -> float:
    """Return the longest time without a confirm, in seconds."""
    times = sorted(entry.at for entry in sends if entry.mark == ACKED)
    return max((later - earlier for earlier, later in pairwise(times)), default=0.0)
