"""Tests of a password in a file that changes.

Open connections are updated, new ones use the new password, and nothing is interrupted.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import pytest
from pydantic import SecretStr

from bus import Bus, Event, Request, Router, Settings, contract
from bus.integrations.faststream import application
from bus.operations.brokers.broker import Broker
from bus.operations.management_api import Management
from bus.transports.faststream import FastStreamTransport, broker_of_its_own
from bus.transports.rabbitmq import credential_refresh as renewal
from tests.broker import management_url
from tests.integration.command import bus as command
from tests.polling import until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

WAIT = 30
"""Seconds to wait for steps that take milliseconds, because the machine may be busy."""
WAYS = ("lane", "plain", "faststream")
RENEWED = "the password was renewed"
REFUSED = (
    "the broker refuses the new password; open connections keep the previous one until it expires"
)


@contract("vault.open", version=1)
class Open(Request[None]):
    """A request without contents."""


@contract("vault.opened", version=1)
class Opened(Event):
    """An event without contents."""


router = Router("vault")


@router.request(Open)
async def answer(_ask: Open) -> None:
    """Answer the request."""


@dataclass(frozen=True, kw_only=True)
class Vault:
    """A virtual host, its user, and the file with the password."""

    api: Management
    url: str
    """The broker's URL, with a password that was never valid."""
    user: str
    file: Path

    def write(self, password: str) -> str:
        """Replace the file in one step, by a rename."""
        following = self.file.with_name("following")
        following.write_text(f"{password}\n")
        following.replace(self.file)
        return password

    async def change(self) -> str:
        """Set a new password at the broker and in the file."""
        password = secrets.token_urlsafe()
        await self.api.call(
            "PUT", f"users/{self.user}", {"password": password, "tags": "management"}
        )
        return self.write(password)

    def settings(self, way: str) -> Settings:
        return Settings(
            url=SecretStr(self.url),
            password_file=self.file,
            fastlane=way == "lane",
            connect_timeout=WAIT,
        )

    @asynccontextmanager
    async def served(self, way: str) -> AsyncIterator[Bus]:
        settings, transport = self.settings(way), None
        if way == "faststream":
            transport = FastStreamTransport(
                broker_of_its_own(settings, name="vault"), settings=settings, name="vault", own=True
            )
        async with Bus("vault", settings=settings, transport=transport) as bus, bus.serving(router):
            yield bus

    async def disconnect(self, count: int) -> None:
        """Close the user's connections, when the management API lists at least `count` of them.

        The API lists a connection a few seconds after it was opened.
        """
        vhost = quote(urlsplit(self.url).path[1:], safe="")
        async with asyncio.timeout(WAIT):
            while True:
                found = [
                    each["name"]
                    for each in await self.api.call("GET", f"vhosts/{vhost}/connections")
                ]
                if len(found) >= count:
                    break
                await asyncio.sleep(0.1)
        for name in found:
            await self.api.call("DELETE", f"connections/{quote(name)}")


@pytest.fixture
async def vault(
    shared_broker: Broker, vhost_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Vault]:
    monkeypatch.setattr(renewal, "POLL_INTERVAL_SECONDS", 0.1)
    api = Management(management_url(shared_broker), shared_broker.url)
    parts, user = urlsplit(vhost_url), f"vault-{secrets.token_hex(4)}"
    url = urlunsplit(parts._replace(netloc=f"{user}:never-good@{parts.netloc.rpartition('@')[2]}"))
    made = Vault(api=api, url=url, user=user, file=tmp_path / "password")
    await made.change()
    await api.call(
        "PUT",
        f"permissions/{quote(parts.path[1:], safe='')}/{user}",
        dict.fromkeys(("configure", "write", "read"), ".*"),
    )
    yield made
    await api.call("DELETE", f"users/{user}")


def lost(caplog: pytest.LogCaptureFixture) -> int:
    return count_of("; connecting again", caplog) + count_of("broker reconnects", caplog)


def count_of(text: str, caplog: pytest.LogCaptureFixture) -> int:
    """Return the number of log lines that contain the text."""
    return sum(text in message for message in caplog.messages)


def assert_hidden(passwords: Sequence[str], caplog: pytest.LogCaptureFixture) -> None:
    """Check that no log line and no field of a log record has a password."""
    written = caplog.text + str([vars(record) for record in caplog.records])
    assert [password for password in passwords if password in written] == []


@pytest.mark.parametrize("way", WAYS)
async def test_open_connections_are_told_and_lost_ones_come_back_with_it(
    vault: Vault, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    count = 1 if way == "faststream" else 3
    first = vault.file.read_text().strip()
    async with vault.served(way) as bus:
        await bus.request(Open(), timeout=WAIT)
        second = await vault.change()
        await until(lambda: count_of(RENEWED, caplog) == count, "connections that were told")
        await bus.request(Open(), timeout=WAIT)
        assert lost(caplog) == 0
        await vault.disconnect(count)
        await until(lambda: lost(caplog) == count, "lost connections")
        await until(lambda: bus.ready, "the way back")
        await bus.request(Open(), timeout=WAIT)
        await bus.publish(Opened(), timeout=WAIT)
    assert_hidden([first, second], caplog)


@pytest.mark.parametrize("way", WAYS)
async def test_a_password_that_the_broker_refuses_interrupts_nothing_and_is_warned_of_once(
    vault: Vault, way: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "RETRY_REFUSED_SECONDS", 0.1)
    caplog.set_level(logging.DEBUG)
    async with vault.served(way) as bus:
        wrong = vault.write("wrong-altogether")
        await until(lambda: REFUSED in caplog.text, "a trial")
        await bus.request(Open(), timeout=WAIT)
        right = await vault.change()
        await until(lambda: RENEWED in caplog.text, "the right one")
        await bus.request(Open(), timeout=WAIT)
    assert (lost(caplog), count_of(REFUSED, caplog)) == (0, 1)
    assert_hidden([wrong, right], caplog)


async def test_a_faststream_application_of_one_router_renews_its_password(
    vault: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app = application(router, settings=vault.settings("faststream"))
    await app.start()
    try:
        await vault.change()
        await until(lambda: RENEWED in caplog.text, "what changed")
    finally:
        await app.stop()
    assert lost(caplog) == 0


async def test_the_command_line_comes_with_the_files_password(vault: Vault) -> None:
    environment = {
        "BUS_URL": vault.url,
        "BUS_PASSWORD_FILE": str(vault.file),
        "BUS_MANAGEMENT_URL": vault.api.where,
    }
    seen = await command("doctor", "--json", **environment)
    assert json.loads(seen.out)["server"]["product"] == "RabbitMQ", seen
    listed = await command("queues", "--json", **environment)
    assert listed.code == 0, listed
    assert json.loads(listed.out)["without_management"] is None
    wrong = vault.write("wrong-altogether")
    refused = await command("doctor", **environment)
    assert refused.code == 77, refused
    assert "BUS_PASSWORD_FILE" in refused.out
    assert wrong not in refused.out + refused.err
