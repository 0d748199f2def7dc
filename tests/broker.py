"""The RabbitMQ broker that the tests share, with a virtual host for each test."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bus.operations.brokers.broker import Broker
from bus.operations.brokers.private_node import PrivateNode
from bus.testing.rabbitmq import virtual_host

START, CTL = 150.0, 120.0
"""Seconds for the start of a node, and for one rabbitmqctl, which starts an Erlang VM too.

They take 5 s and 1 s, and a minute on a busy machine.
"""


@contextmanager
def fresh_vhost(broker: Broker) -> Iterator[str]:
    """Create an empty virtual host, yield its URL, and remove it afterwards."""
    with virtual_host(broker) as host:
        yield host.url


def management_url(broker: Broker) -> str:
    """Return the address of the management API, which every broker of the tests has."""
    assert broker.management_url
    return broker.management_url


async def kill_with_queues_on_disk(node: PrivateNode) -> None:
    """Kill the node with SIGKILL once its declared queues are on the disk."""
    await queues_to_disk(node)
    await node.kill()


async def queues_to_disk(node: PrivateNode) -> None:
    """Wait until the declared queues are on the disk.

    RabbitMQ 3.10 writes its tables of queues a moment after the declaration. If the broker is
    killed before that, a quorum queue is unusable after the restart, and no client can repair it.
    """
    await evaluate(node, "mnesia:sync_log(), [dets:sync(Table) || Table <- dets:all()].")


async def set_watermark(node: PrivateNode, memory: str) -> None:
    """Set the memory that raises the node's alarm: `1GB`, or `1` to raise it now."""
    await evaluate(
        node, f'vm_memory_monitor:set_vm_memory_high_watermark({{absolute, "{memory}"}}).'
    )


async def raise_alarm(node: PrivateNode) -> None:
    """Raise the node's memory alarm, and wait until each open connection knows of it.

    RabbitMQ tells its connections of an alarm a moment after the watermark was set. A message
    that is published in that moment is still confirmed.
    """
    await set_watermark(node, "1")
    async with asyncio.timeout(CTL):
        # Each evaluation starts a process, so the loop does not turn quickly.
        while "running" in await evaluate(node, "rabbit_networking:connection_info_all([state])."):
            pass


async def evaluate(node: PrivateNode, expression: str) -> str:
    """Evaluate an Erlang expression, which ends with a full stop, on the node.

    Erlang's `erl_call` does it if it is installed. rabbitmqctl starts another Erlang VM, which
    takes 0.6 s of processor time, and 7 to 30 s on a busy machine.
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
    """Return the path of `erl_call` beside the name server, or None if the package lacks it."""
    program = node._installation.epmd.resolve().with_name("erl_call")
    return program if program.exists() else None
