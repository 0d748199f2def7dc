"""Connections to one of several hosts."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from bus.cli.dead.queues import IgnoredReturns
from bus.errors import Unauthenticated, Unavailable
from bus.settings import Settings
from bus.transports.rabbitmq import RabbitMQTransport
from bus.transports.rabbitmq.connection import SupervisedConnection
from bus.transports.rabbitmq.credential_refresh import is_accepted
from bus.transports.rabbitmq.handshake import probe
from tests.polling import BRIEF, until
from tests.unit.transports.rabbitmq.broker_stub import Host, hosts


def connection(url: str, **options: Any) -> SupervisedConnection:
    known: dict[str, Any] = {"name": "t", "heartbeat": 10, "attempt_timeout": 10, "fastlane": True}
    return SupervisedConnection(url, **known | options)


@asynccontextmanager
async def started(*urls: str, timeout: float = 10) -> AsyncIterator[list[SupervisedConnection]]:
    links = [connection(url) for url in urls]
    try:
        for link in links:
            await link.start(timeout=timeout)
        yield links
    finally:
        for link in links:
            await link.close()


async def test_the_next_host_is_tried_if_the_first_one_cannot_be_reached() -> None:
    first, second = Host(), Host()
    async with hosts(first, second) as url:
        await first.stop()
        async with started(url) as (link,):
            assert link.is_up
            assert link._place() == second.place


async def test_a_lost_connection_goes_on_at_the_next_host_and_later_at_the_first_again() -> None:
    first, second = Host(), Host()
    async with hosts(first, second) as url, started(url) as (link,):
        await first.stop()
        await until(lambda: link.is_up and second.connected, "the second host")
        assert link._place() == second.place
        await first.start()
        await second.stop()
        await until(lambda: link.is_up and first.connected, "the first host")
        assert link._place() == first.place


async def test_a_host_that_refuses_the_credentials_is_skipped() -> None:
    first, second = Host(refuses=True), Host()
    async with hosts(first, second) as url, started(url) as (link,):
        assert link._place() == second.place


async def test_a_start_fails_at_once_only_if_every_host_refuses() -> None:
    first, second = Host(refuses=True), Host(refuses=True)
    async with hosts(first, second) as url:
        link = connection(url)
        with pytest.raises(Unauthenticated) as caught:
            await asyncio.wait_for(link.start(timeout=1000), 20)
        await link.close()
    for host in (first, second):
        assert f"connecting to {host.place}: the broker refused the credentials" in str(
            caught.value
        )


async def test_a_start_with_no_host_names_each_host_and_its_reason() -> None:
    first, second = Host(refuses=True), Host()
    async with hosts(first, second) as url:
        await second.stop()
        link = connection(url)
        with pytest.raises(Unavailable) as caught:
            await link.start(timeout=0.25)
        await link.close()
    text = str(caught.value)
    assert text.startswith(f"the broker at {first.place}, {second.place} cannot be reached (")
    assert f"{first.place}: the broker refused the credentials" in text
    assert f"{second.place}: Connection refused" in text


async def test_a_start_names_each_host_that_does_not_answer() -> None:
    async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            pass
        writer.close()

    silent = await asyncio.start_server(says_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with silent:
        # Both names are this machine. The second attempt outlasts the start.
        link = connection(f"amqp://u:p@127.0.0.1:{port},localhost:{port}/", attempt_timeout=0.2)
        with pytest.raises(Unavailable) as caught:
            await link.start(timeout=0.15)
        await link.close()
        link = connection(f"amqp://u:p@127.0.0.1:{port},localhost:{port}/", attempt_timeout=20)
        with pytest.raises(Unavailable) as untried:
            await link.start(timeout=0.05)
        await link.close()
    assert f"(connecting to 127.0.0.1:{port}: " in str(caught.value)
    assert f"; connecting to localhost:{port}: " in str(caught.value)
    assert str(untried.value).startswith(
        f"the broker at 127.0.0.1:{port}, localhost:{port} cannot be reached "
        f"(connecting to 127.0.0.1:{port}: no answer; "
        f"connecting to localhost:{port}: not tried in this time)."
    )


async def test_a_host_that_does_not_answer_leaves_time_for_the_next_one() -> None:
    """At a start, each host has the whole timeout."""

    async def says_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(100):
            pass
        writer.close()

    silent = await asyncio.start_server(says_nothing, "127.0.0.1", 0)
    second = Host()
    async with silent, hosts(second) as url:
        port = silent.sockets[0].getsockname()[1]
        link = connection(url.replace("@", f"@127.0.0.1:{port},"), attempt_timeout=0.3)
        await link.start(timeout=0.3)
        assert link._place() == second.place
        await link.close()


async def test_a_host_of_another_cluster_is_refused_until_the_right_one_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    right, wrong = Host(cluster="x"), Host(cluster="y")
    caplog.set_level(logging.WARNING)
    async with hosts(right, wrong) as url, started(url) as (link,):
        await right.stop()
        await until(lambda: wrong.attempts >= 2, "attempts at the wrong host")
        assert not link.is_up
        text = (
            f"host {wrong.place} belongs to the cluster 'y', but this process is connected to "
            "'x'. List only nodes of one cluster in BUS_URL."
        )
        assert caplog.text.count(text) == 1
        await right.start()
        await until(lambda: link.is_up and right.connected == 1, "the right host")
        await until(lambda: wrong.connected == 0, "the end of the refused connections")


async def test_a_transport_is_refused_while_one_connection_finds_only_another_cluster() -> None:
    right, wrong = Host(cluster="x"), Host(cluster="y")
    async with hosts(right, wrong) as url:
        transport = RabbitMQTransport(Settings(url=SecretStr(url)), name="desk")
        await transport.start(IgnoredReturns(), timeout=10)
        assert not transport.is_refused
        right.refuses = True  # only new connections
        lane = transport._publishing.lane
        assert lane is not None
        lane.transport.abort()
        await until(lambda: transport.is_refused, "the refusal of the wrong host")
        assert [link.is_up for link in transport._links] == [True, False, True]
        right.refuses = False
        await until(lambda: not transport.is_refused, "the right host")
        assert transport._publishing.is_up
        await transport.close()


async def test_connections_of_a_process_do_not_open_at_two_clusters_at_the_same_time() -> None:
    right, wrong = Host(cluster="x"), Host(cluster="y")
    async with hosts(right, wrong) as url, started(url, url) as (one, other):
        right.reset()
        await until(lambda: wrong.attempts or right.attempts >= 4, "attempts", poll=BRIEF)
        await until(lambda: one.is_up and other.is_up, "both connections")
        assert (right.connected, wrong.connected) == (2, 0)


async def test_one_host_that_was_set_up_again_is_accepted() -> None:
    host = Host(cluster="x")
    async with hosts(host) as url, started(url) as (link,):
        host.cluster = "y"
        host.reset()
        await until(lambda: host.attempts >= 2 and link.is_up, "a new connection")


async def test_a_probe_asks_the_next_host_and_never_a_host_of_another_cluster() -> None:
    first, second = Host(cluster="x"), Host(cluster="x")
    async with hosts(first, second) as url:
        await first.stop()
        assert (await probe(url)).cluster == "x"
        second.cluster = "y"
        with pytest.raises(Unavailable, match=r"cannot be reached.*belongs to the cluster 'y'"):
            await probe(url)


async def test_a_probe_removes_the_content_of_the_libraries_log_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    theirs = logging.getLogger("aiormq.connection")
    for each in [*theirs.filters]:
        theirs.removeFilter(each)
    host = Host()
    async with hosts(host) as url:
        await probe(url)
    theirs.error("Unhandled message %r", "hunter2")
    assert "hunter2" not in caplog.text
    assert theirs.filters


async def test_the_heartbeat_of_the_url_is_that_of_each_connection_and_of_its_watch() -> None:
    host = Host()
    async with hosts(host) as url:
        settings = Settings(url=SecretStr(f"{url}?heartbeat=5"))
        transport = RabbitMQTransport(settings, name="desk")
        await transport.start(IgnoredReturns(), timeout=10)
        await transport.close()
        assert host.heartbeats == [5, 5, 5]
        assert [link._heartbeat for link in transport._links] == [5, 5, 5]


async def test_a_new_password_is_tried_at_the_first_host_that_answers() -> None:
    first, second = Host(), Host()
    async with hosts(first, second):
        await first.stop()
        urls = [f"amqp://guest@{host.place}/" for host in (first, second)]
        assert await is_accepted(urls, SecretStr("new"))
        second.refuses = True
        assert not await is_accepted(urls, SecretStr("new"))
        await second.stop()
        with pytest.raises(Unavailable):
            await is_accepted(urls, SecretStr("new"))
