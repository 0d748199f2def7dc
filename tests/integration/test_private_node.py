import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import pytest

from bus.errors import Unauthenticated, Unavailable
from bus.operations.brokers.installation import Installation
from bus.operations.brokers.ports import LOOPBACK, accepts, speaks_amqp
from bus.operations.brokers.private_node import PrivateNode
from bus.operations.management_api import Management
from tests.broker import CTL, evaluate, kill_with_queues_on_disk
from tests.polling import until

OWNER = """
import asyncio, json, os
from bus.operations.brokers import private_node
from bus.operations.brokers.installation import find_installation
from bus.operations.brokers.private_node import PrivateNode

async def main():
    private_node.START_TIMEOUT_SECONDS = 150
    node = PrivateNode(find_installation(os.environ))
    await node.start()
    print(json.dumps([node.url, str(node.directory), list(node.pids.values())]), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def node(private_node: PrivateNode) -> PrivateNode:
    return private_node


@pytest.fixture(scope="module")
def lasting_second(installation: Installation) -> Iterator[PrivateNode]:
    second = PrivateNode(
        installation, config={"consumer_timeout": "5000", "disk_free_limit.absolute": "2MB"}
    )
    yield second
    asyncio.run(second.stop())


@pytest.fixture
async def second(lasting_second: PrivateNode) -> PrivateNode:
    """Return another running node with its own settings, and start it again if a test ended it."""
    await lasting_second.start()
    return lasting_second


def alive(group: int) -> list[str]:
    """Return the running programs of a process group, without zombies.

    `-ww` is needed because `ps` cuts its lines at `COLUMNS` if that is set. A program after a long
    path would then be missing.
    """
    listed = subprocess.run(
        ["ps", "-ww", "-A", "-o", "pgid=,stat=,args="], check=True, capture_output=True, text=True
    ).stdout
    rows = (line.split(maxsplit=2) for line in listed.splitlines())
    return [" ".join(row) for row in rows if int(row[0]) == group and not row[1].startswith("Z")]


async def publish(url: str, queue: str) -> None:
    connection = await aio_pika.connect(url, timeout=30)
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue(queue, durable=True)
        message = aio_pika.Message(b"kept", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, queue, timeout=30)


async def depth(url: str, queue: str) -> int | None:
    connection = await aio_pika.connect(url, timeout=30)
    async with connection:
        channel = await connection.channel()
        declared = await channel.declare_queue(queue, passive=True, timeout=30)
        return declared.declaration_result.message_count


async def test_a_node_takes_clients_and_answers_ctl_and_its_api(node: PrivateNode) -> None:
    await publish(node.url, "greetings")
    assert await depth(node.url, "greetings") == 1
    assert "greetings" in await node.ctl("list_queues", "name", timeout=CTL)
    assert (await Management(node.management_url, node.url).version())[0].isdigit()


async def test_a_killed_node_comes_back_on_its_ports_with_its_data(node: PrivateNode) -> None:
    url, pids = node.url, node.pids
    await publish(url, "kept")
    await kill_with_queues_on_disk(node)
    assert not node.running
    assert not speaks_amqp(LOOPBACK, node.port)
    assert alive(pids["guard"]) == []

    await node.start()
    assert node.url == url
    assert node.pids["node"] != pids["node"]
    assert await depth(url, "kept") == 1


async def test_a_node_with_the_password_of_an_earlier_run_gets_the_chosen_one(
    second: PrivateNode,
) -> None:
    second._password = "chosen now"
    await second._log_in()
    answer = await Management(second.management_url, second.url).call("GET", "whoami")
    assert answer["name"] == "bus"


async def test_a_restarted_node_keeps_its_data(node: PrivateNode) -> None:
    await publish(node.url, "orderly")
    await node.restart()
    assert await depth(node.url, "orderly") == 1


async def test_a_paused_node_accepts_and_does_not_answer_until_it_is_resumed(
    node: PrivateNode,
) -> None:
    await node.pause()
    await until(lambda: not speaks_amqp(LOOPBACK, node.port), "the node's threads to stop")
    assert accepts(node.port)
    await node.resume()
    await until(lambda: speaks_amqp(LOOPBACK, node.port), "an answer after the pause")


async def test_only_its_own_password_opens_it(node: PrivateNode) -> None:
    wrong = node.url.replace("bus:", "bus:not-")
    with pytest.raises(Unauthenticated, match="refuses the user 'bus'"):
        await Management(node.management_url, wrong).call("GET", "whoami")


async def test_a_node_that_cannot_start_says_why_and_leaves_nothing(
    installation: Installation,
) -> None:
    node = PrivateNode(installation, config={"no.such.setting": "1"})
    with pytest.raises(Unavailable) as caught:
        await node.start()
    assert "no.such.setting" in str(caught.value)
    assert "BUS_URL" in str(caught.value)
    assert not node.running
    directory = node.directory
    await node.stop()
    assert not directory.exists()


async def test_a_node_whose_start_is_cut_short_leaves_nothing(installation: Installation) -> None:
    node = PrivateNode(installation)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(node.start(), 0.5)
    assert not node.running
    assert not any(map(accepts, (node.port, node.management_port)))
    await node.stop()


async def test_ctl_says_what_was_wrong(node: PrivateNode) -> None:
    with pytest.raises(Unavailable, match="add_vhost"):
        await node.ctl("add_vhost", timeout=CTL)


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[str]]:
    """Start another process that owns a node."""
    process = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


async def test_a_node_ends_with_the_process_that_started_it_even_when_that_is_killed(
    owner: subprocess.Popen[str],
) -> None:
    assert owner.stdout
    _, directory, pids = json.loads(owner.stdout.readline())
    owner.kill()
    await until(
        lambda: alive(pids[0]) == [] and not Path(directory).exists(),
        "the end of the orphaned node",
    )


async def test_nodes_live_side_by_side_each_with_its_own_settings(
    node: PrivateNode, second: PrivateNode
) -> None:
    await publish(second.url, "second")
    assert "5000" in await evaluate(second, "application:get_env(rabbit, consumer_timeout).")
    assert "5000" not in await evaluate(node, "application:get_env(rabbit, consumer_timeout).")


async def test_a_node_does_not_outlive_its_guard_and_another_does(
    node: PrivateNode, second: PrivateNode
) -> None:
    group = second.pids["guard"]
    os.kill(group, signal.SIGKILL)
    await until(lambda: alive(group) == [], "the end of the unguarded node")
    await until(lambda: speaks_amqp(LOOPBACK, node.port), "the other to answer")


async def test_nothing_is_left_of_a_stopped_node_even_a_paused_one(node: PrivateNode) -> None:
    group, directory = node.pids["guard"], node.directory
    running = " ".join(alive(group))
    assert [program for program in ("guard.py", "epmd", "beam.smp") if program not in running] == []
    await node.pause()
    await node.stop()
    assert alive(group) == []
    assert not directory.exists()
    assert node.pids == {}
    await node.stop()
