"""The RabbitMQ that the tests share, and a virtual host of it for each test."""

import asyncio
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from bus.operations.brokers.broker import Broker
from bus.operations.brokers.private_node import PrivateNode
from bus.operations.brokers.select import broker_for, select_broker
from bus.operations.management_api import Management

START, CTL = 150.0, 120.0
"""Seconds for a node's start and for one rabbitmqctl, which starts an Erlang too: 5 s and 1 s, and on a crowded machine a minute."""


@contextmanager
def running_broker() -> Iterator[Broker]:
    """What `bus broker` would start here (`BUS_TEST_BROKER` chooses); an error, never a skip, where none can be had."""
    broker = broker_for(select_broker(os.environ))
    asyncio.run(broker.start())
    try:
        yield broker
    finally:
        asyncio.run(broker.stop())


@contextmanager
def fresh_vhost(broker: Broker) -> Iterator[str]:
    """The URL of a virtual host that is new and empty, and is removed afterwards."""
    management = Management(management_url(broker), broker.url)
    name = f"test-{secrets.token_hex(6)}"
    asyncio.run(management.add_vhost(name))
    try:
        yield with_vhost(broker.url, name)
    finally:
        asyncio.run(management.delete_vhost(name))


def management_url(broker: Broker) -> str:
    """The API's address, which every broker that is started here knows."""
    assert broker.management_url
    return broker.management_url


def with_vhost(url: str, name: str) -> str:
    """The same broker's URL for another virtual host."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{quote(name, safe='')}"))


async def kill_with_queues_on_disk(node: PrivateNode) -> None:
    """SIGKILL, once what was declared is on the disk."""
    await queues_to_disk(node)
    await node.kill()


async def queues_to_disk(node: PrivateNode) -> None:
    """What was declared is on the disk.

    3.10 writes its tables of queues a moment after their declaration; a quorum queue whose broker is killed before that
    is dead after the restart, and nothing that a client does brings it back.
    """
    await evaluate(node, "mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()].")


async def set_watermark(node: PrivateNode, memory: str) -> None:
    """How much memory it may use before it raises its alarm: `1GB`, or `1` for an alarm now."""
    await evaluate(
        node, f'vm_memory_monitor:set_vm_memory_high_watermark({{absolute, "{memory}"}}).'
    )


async def evaluate(node: PrivateNode, expression: str) -> str:
    """What the node's Erlang makes of an expression, which ends with a full stop.

    By Erlang's own `erl_call` where that is: rabbitmqctl starts another Erlang, 0.6 s of processor and on a crowded machine 7 to 30 s.
    """
    program = erl_call_of(node)
    if program is None:
        return await node.ctl("eval", expression, timeout=CTL)
    cookie = (node.directory / ".erlang.cookie").read_text(encoding="ascii")
    process = await asyncio.create_subprocess_exec(
        *(program, "-c", cookie, "-name", node._name, "-e"),
        env=node._environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(CTL):
        answer, _ = await process.communicate(f"{expression}\n".encode())
    assert answer.startswith(b"{ok,"), answer.decode(errors="replace")
    return answer.decode()


def erl_call_of(node: PrivateNode) -> Path | None:
    """It lies beside the name server; a packager may leave it out."""
    program = node._installation.epmd.resolve().with_name("erl_call")
    return program if program.exists() else None
