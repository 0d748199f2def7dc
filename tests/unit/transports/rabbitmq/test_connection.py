"""Tests of a connection below the fast lane."""

import asyncio
import errno
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiormq.exceptions import ConnectionClosed

from bus.errors import ConfigurationError, Unavailable
from bus.transports.rabbitmq.connection import SupervisedConnection
from bus.transports.rabbitmq.fastlane.protocol import FastLaneTransportFactory
from bus.transports.rabbitmq.handshake import probe
from tests.unit.transports.rabbitmq.fakes import connected


@pytest.mark.parametrize("fastlane", [True, False])
async def test_an_attempt_that_is_given_up_leaves_no_socket_open(*, fastlane: bool) -> None:
    ends: asyncio.Queue[bytes] = asyncio.Queue()

    async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(100)  # AMQP's protocol header
            ends.put_nowait(await reader.read())  # all further bytes until the connection ends
        except ConnectionError:
            ends.put_nowait(b"")
        finally:
            writer.close()

    async with await asyncio.start_server(says_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        link = SupervisedConnection(
            f"amqp://guest:guest@127.0.0.1:{port}/",
            name="test",
            heartbeat=10,
            attempt_timeout=0.2,
            fastlane=fastlane,
        )
        with pytest.raises(Unavailable):
            await link.start(timeout=0.5)
        try:
            assert await asyncio.wait_for(ends.get(), 20) == b""
        finally:
            await link.close()


async def test_a_broker_that_has_no_limit_to_its_frames_sends_a_large_body_in_one() -> None:
    """Check the case of `frame_max = 0` in rabbitmq.conf."""
    link = SupervisedConnection(
        "amqp://guest:guest@127.0.0.1/", name="test", heartbeat=10, attempt_timeout=1, fastlane=True
    )
    factory = FastLaneTransportFactory()
    factory.lane, socket = connected()
    tuned = SimpleNamespace(connection_tune=SimpleNamespace(frame_max=0))
    link._connection = cast("Any", SimpleNamespace(transport=SimpleNamespace(connection=tuned)))
    lane = link._join(factory)
    assert lane is not None
    size = 20 * 1024 * 1024
    lane.data_received(b"\x03\x00\x01" + size.to_bytes(4, "big") + bytes(size) + b"\xce")
    assert lane.last_error is None
    assert not socket.aborted


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (
            ConnectionClosed(320, "CONNECTION_FORCED - Closed via management plugin"),
            "CONNECTION_FORCED - Closed via management plugin",
        ),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "Connection reset by"),
        (KeyError("Eleonora Quist"), "KeyError"),
        (None, "no reason known"),
        (asyncio.CancelledError(), "no reason known"),
    ],
)
async def test_a_lost_connection_is_logged_with_the_reason_that_aiormq_has(
    error: BaseException | None, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    link = SupervisedConnection(
        "amqp://guest:guest@127.0.0.1/",
        name="test",
        heartbeat=10,
        attempt_timeout=1,
        fastlane=False,
    )
    closing = asyncio.get_running_loop().create_future()
    if isinstance(error, asyncio.CancelledError):
        closing.cancel()
    elif error is not None:
        closing.set_exception(error)
    closed = SimpleNamespace(connection=SimpleNamespace(closing=closing))
    link._connection = cast("Any", SimpleNamespace(transport=closed))
    link.up.set()
    link._mark_down()
    (record,) = caplog.records
    assert f"lost ({why}" in record.getMessage()
    assert "Eleonora" not in record.getMessage()


@pytest.mark.parametrize("host", ["broker..example", f"{'b' * 64}.example", "[::1"])
async def test_a_url_with_an_impossible_host_is_a_configuration_error_that_shows_no_password(
    host: str,
) -> None:
    with pytest.raises(ConfigurationError, match="BUS_URL: the address is not valid") as caught:
        await probe(f"amqp://guest:hunter2@{host}/")
    assert "hunter2" not in str(caught.value)
