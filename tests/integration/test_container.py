import os
import signal
import subprocess

import pytest
from testcontainers.core.config import testcontainers_config

from bus.errors import Unavailable
from bus.operations.brokers.container import IMAGE, ContainerBroker
from bus.operations.brokers.docker import engine_answers
from bus.operations.management_api import Management
from bus.transports.rabbitmq.handshake import probe
from tests.integration.command import bus, ended, running


def image_is_here() -> bool:
    """Return True if a container can be started without a registry.

    Tests outside this module need no container, because they run on a private node.
    """
    if not engine_answers(os.environ):
        return False
    return (
        subprocess.run(
            ["docker", "image", "inspect", IMAGE], capture_output=True, check=False
        ).returncode
        == 0
    )


pytestmark = pytest.mark.skipif(
    not image_is_here(), reason=f"no Docker engine with {IMAGE} on this machine"
)
ASKED_FOR = {
    "BUS_URL": "",
    "BUS_TEST_BROKER": "testcontainers",
    "BUS_TEST_IMAGE": IMAGE,
    "TESTCONTAINERS_RYUK_DISABLED": "true",
}


@pytest.fixture(autouse=True)
def no_reaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable the reaper: its image may be missing, and the tests stop their containers."""
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)


async def test_a_container_takes_clients_and_answers_its_api() -> None:
    broker = ContainerBroker()
    try:
        await broker.start()
        assert [broker.running] == [True]
        assert (await probe(broker.url)).product == "RabbitMQ"
        assert (await Management(broker.management_url, broker.url).call("GET", "whoami"))[
            "name"
        ] == "bus"
        assert (await broker.ctl("list_vhosts", "--no-table-headers")).split() == ["/"]
        with pytest.raises(Unavailable, match="no-such-command"):
            await broker.ctl("no-such-command")
    finally:
        await broker.stop()
    assert [broker.running] == [False]
    await broker.stop()


async def test_an_image_that_cannot_be_had_is_an_error_that_says_so() -> None:
    with pytest.raises(Unavailable, match="registry"):
        await ContainerBroker("trunkline.invalid/nothing:1").start()


async def test_the_demonstration_plays_in_a_container_where_that_is_asked_for() -> None:
    answer = await bus("demo", **ASKED_FOR)

    assert answer.code == 0, answer.err
    assert f"{IMAGE} in a container" in answer.out
    assert "failed job in the store: invalid_argument" in answer.out


async def test_a_broker_in_a_container_is_gone_after_its_end() -> None:
    async with running("broker", **ASKED_FOR) as process:
        assert process.stdout is not None
        said = b""
        while b"Ctrl-C stops the broker" not in said:
            line = await process.stdout.readline()
            assert line, "it ended by itself"
            said += line
        url = said.decode().partition("export BUS_URL=")[2].split()[0]
        assert (await probe(url)).product == "RabbitMQ"
        process.send_signal(signal.SIGTERM)
        answer = await ended(process)

    assert answer.code == 0
    assert "its data is removed" in answer.out
    with pytest.raises(Unavailable):
        await probe(url)
