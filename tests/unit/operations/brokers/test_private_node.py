"""A private node with programs that stand in for RabbitMQ."""

import socket
import sys
from pathlib import Path

import pytest

from bus.errors import Unavailable
from bus.operations.brokers import private_node
from bus.operations.brokers.broker_options import BrokerOptions
from bus.operations.brokers.installation import Installation
from bus.operations.brokers.ports import LOOPBACK, free_ports
from bus.operations.brokers.private_node import PrivateNode

EPMD = f"""#!{sys.executable} -IS
import os, socket, time
server = socket.create_server(("127.0.0.1", int(os.environ["ERL_EPMD_PORT"])))
time.sleep(60)
"""
SERVER = "#!/bin/sh\nexit 1\n"
CTL = "#!/bin/sh\nprintf '\\033[1mError\\033[0m: it does not answer\\n' >&2\nexit 64\n"


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """Return an installation with a node that ends at once."""
    for name, text in (("epmd", EPMD), ("server", SERVER), ("ctl", CTL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o700)
    return Installation(
        server=tmp_path / "server",
        ctl=tmp_path / "ctl",
        epmd=tmp_path / "epmd",
        search_path="/usr/bin:/bin",
    )


async def test_a_port_that_another_program_took_during_the_start_is_named(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_node, "check_free", lambda _: None)  # the port was free before
    port = free_ports(1)[0]
    node = PrivateNode(installation, options=BrokerOptions(port=port))
    with (
        socket.create_server((LOOPBACK, port)),
        pytest.raises(Unavailable, match=f"port {port} cannot be opened, because another"),
    ):
        await node.start()
    await node.stop()


async def test_a_node_that_ends_by_itself_is_an_error_with_its_log(
    installation: Installation,
) -> None:
    node = PrivateNode(installation)
    with pytest.raises(Unavailable, match="ended during its start"):
        await node.start()
    await node.stop()


async def test_an_error_of_rabbitmqctl_has_no_colours(installation: Installation) -> None:
    node = PrivateNode(installation)
    node._make_directory()
    with pytest.raises(Unavailable, match=r"^rabbitmqctl status failed: Error: it does not.*$"):
        await node.ctl("status")
    await node.stop()
