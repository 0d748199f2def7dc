"""The errors and log lines of a control channel that the broker refuses."""

import logging
from collections.abc import Callable
from typing import cast

import pytest

from bus.cli.topology import command as topology_command
from bus.errors import BusError, ConfigurationError, PermissionDenied, Unavailable
from bus.messaging.ports.transport import Delivery, Transport
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.control import COMMANDS, control_topology
from bus.runtime.discovery.announcements import AnnouncementStream
from bus.runtime.discovery.control_link import ControlLink, Member
from bus.security.open_control import OPEN_CONTROL
from tests.unit.fakes import virtual

MISSING = ConfigurationError(
    "the broker has no exchange bus.control. With BUS_TOPOLOGY=verify the service does not create "
    "them. Let an administrator import the output of `bus topology export`."
)
REFUSED = PermissionDenied("ACCESS_REFUSED - access to topic 'answer.x' refused")
USERS = "Let an administrator import the output of `bus topology definitions` again."
OTHER_USER = "Pass --as SERVICE with the service of the user in BUS_URL, or use another user."


class Refusing:
    """A transport with a broker that refuses the control channel."""

    ready = False

    def __init__(self, error: BusError) -> None:
        self.error = error

    async def open_control(
        self,
        spec: ConsumerSpec,
        on_delivery: Callable[[Delivery], None],
        on_refused: Callable[[BusError], None],
    ) -> "Refusing":
        assert spec.queue.exclusive
        on_refused(self.error)
        return self

    async def close(self) -> None:
        return


def member(error: BusError, receiver: str = "ledger") -> Member:
    return Member(
        source=receiver,
        receiver=receiver,
        instance="1",
        transport=cast("Transport", Refusing(error)),
        guard=OPEN_CONTROL,
        max_body_bytes=2**20,
    )


@pytest.mark.parametrize(
    ("error", "receiver", "explanation"),
    [
        (MISSING, "ledger", str(MISSING)),
        (REFUSED, "ledger", f"{REFUSED}. {USERS}"),
        (REFUSED, COMMANDS, f"{REFUSED}. {OTHER_USER}"),
    ],
)
def test_a_refused_control_channel_has_one_remedy_in_the_error_and_in_the_log(
    error: BusError, receiver: str, explanation: str, caplog: pytest.LogCaptureFixture
) -> None:
    @virtual
    async def run() -> None:
        link = ControlLink(member(error, receiver), control_topology(receiver, "1"))
        await link.open(lambda _: None)
        with pytest.raises(Unavailable) as raised:
            await link.wait_ready(1)
        assert str(raised.value) == f"discovery is off: {explanation}"

    run()
    (line,) = [each.getMessage() for each in caplog.records if each.name == "bus.discovery"]
    assert line == (
        f"{receiver}: discovery is off, because the broker refused the control channel: "
        f"{explanation}"
    )


def test_the_commands_of_the_remedies_exist() -> None:
    names = {
        each.name or each.callback.__name__
        for each in topology_command.registered_commands
        if each.callback is not None
    }
    assert {"export", "definitions"} <= names


def test_a_refused_listener_gets_the_error_and_the_log_gets_no_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    @virtual
    async def run() -> None:
        for _ in range(3):
            stream = AnnouncementStream(member(REFUSED))
            with pytest.raises(Unavailable, match=r"access to topic"):
                await anext(stream)
            await stream.aclose()

    run()
    assert caplog.records == []
