"""Tests of TLS settings, client certificates, and tokens of an OAuth 2 server."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bus import (
    Bus,
    Event,
    PermissionDenied,
    Request,
    Router,
    Unauthenticated,
    Unavailable,
    contract,
)
from bus.contracts.contract import Catalog, contract_of
from bus.operations.brokers.installation import find_installation
from bus.operations.brokers.ports import LOOPBACK, free_ports
from bus.operations.brokers.private_node import PrivateNode
from bus.operations.brokers.select import INSTALL
from bus.operations.management_api import Management
from bus.operations.topology.definitions import definitions
from bus.operations.topology.permissions import broker_users, permissions, users
from bus.runtime.requirements import required_by
from bus.security.grants import Grants, ServiceGrants
from bus.settings import load_settings
from bus.transports.faststream import FastStreamTransport, broker_of_its_own
from bus.transports.rabbitmq import credential_refresh as renewal
from tests.examples.page import ROOT, blocks, followed
from tests.integration.certificates import Certificates, certificates
from tests.polling import until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

PAGES = ROOT / "docs/how-to"
OAUTH_2 = {block.title: block.text for block in blocks(PAGES / "use-oauth-2.md")}

catalog = Catalog()
WAIT = 20
"""Seconds to wait for steps that take milliseconds, because the machine may be busy."""


@contract("desk.ask", version=1, catalog=catalog)
class Ask(Request[None]):
    """A request without contents."""


@contract("desk.asked", version=1, catalog=catalog)
class Asked(Event):
    """An event without contents."""


router = Router("desk")


@router.request(Ask)
async def answer(_ask: Ask) -> None:
    """Answer the request."""


ASK = contract_of(Ask)
GRANTS = Grants({"desk": ServiceGrants(call=frozenset({ASK.permission}))})


@dataclass(frozen=True, kw_only=True)
class Secure:
    """A node that requests client certificates and accepts tokens."""

    node: PrivateNode
    port: int
    management_port: int
    certificates: Certificates
    issuer: rsa.RSAPrivateKey

    def url(self, credentials: str, host: str = "localhost") -> str:
        return f"amqps://{credentials}{host}:{self.port}/"

    @property
    def administrator(self) -> str:
        return urlsplit(self.node.url).netloc.rpartition("@")[0] + "@"

    def token(self, *scopes: str, expires: float = 300) -> str:
        claims = {
            "aud": "rabbitmq",
            "sub": "desk",
            "exp": int(time.time() + expires),
            "scope": " ".join(scopes),
        }
        return jwt.encode(claims, self.issuer, algorithm="RS256", headers={"kid": "ours"})


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("tls")
    made = certificates(folder / "localhost", "localhost", client="desk")
    issuer = rsa.generate_private_key(65537, 2048)
    public = issuer.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / "issuer.pem").write_bytes(public)
    port, management_port = free_ports(2)
    server = {
        "cacertfile": str(made.authority),
        "certfile": str(made.certificate),
        "keyfile": str(made.key),
    }
    config = {
        "listeners.ssl.default": f"{LOOPBACK}:{port}",
        **{f"ssl_options.{name}": value for name, value in server.items()},
        "ssl_options.verify": "verify_peer",
        "ssl_options.fail_if_no_peer_cert": "false",
        "management.ssl.port": str(management_port),
        **{f"management.ssl.{name}": value for name, value in server.items()},
        "auth_mechanisms.1": "PLAIN",
        "auth_mechanisms.2": "EXTERNAL",
        "ssl_cert_login_from": "common_name",
        **dict(line.split(" = ") for line in OAUTH_2["rabbitmq.conf"].splitlines()),
        "auth_oauth2.signing_keys.ours": str(folder / "issuer.pem"),
    }
    installation = find_installation(os.environ)
    assert installation, INSTALL
    node = PrivateNode(
        installation,
        config=config,
        plugins=("rabbitmq_auth_mechanism_ssl", "rabbitmq_auth_backend_oauth2"),
    )
    asyncio.run(node.start())
    found = broker_users(GRANTS, [ASK], ["desk"])
    needed = required_by([router], load_settings(topology="verify")).topology
    access = {"users": users(found, None), **permissions(found, vhost="/")}
    asyncio.run(
        Management(node.management_url, node.url).call(
            "POST", "definitions", {**definitions(needed), **access}
        )
    )
    yield Secure(
        node=node, port=port, management_port=management_port, certificates=made, issuer=issuer
    )
    asyncio.run(node.stop())


async def served(seen: Callable[[], object] = lambda: True, /, **settings: object) -> None:
    """Run a service with these settings, which sends a request to itself, until `seen()`."""
    async with (
        Bus(
            "desk", settings=load_settings(topology="verify", connect_timeout=WAIT, **settings)
        ) as bus,
        bus.serving(router),
    ):
        await bus.request(Ask(), timeout=WAIT)
        await until(seen, "the effect of the settings")


async def refused(**settings: object) -> str:
    with pytest.raises(Unavailable) as told:
        async with Bus("desk", settings=load_settings(connect_timeout=2, **settings)):
            pass
    assert len(str(told.value).splitlines()) == 1
    return str(told.value)


@pytest.mark.parametrize("fastlane", [True, False])
async def test_a_service_comes_with_its_certificate_and_no_password(
    secure: Secure, fastlane: bool
) -> None:
    ours = {
        "ca_file": secure.certificates.authority,
        "client_certificate": secure.certificates.client,
        "fastlane": fastlane,
    }
    await served(url=secure.url("desk@"), **ours)
    await served(url=secure.url(""), **ours)


async def test_a_certificate_of_the_broker_for_another_name_or_by_another_authority_is_refused(
    secure: Secure, tmp_path: Path
) -> None:
    known = {"ca_file": secure.certificates.authority}
    await served(url=secure.url(secure.administrator), **known)
    assert "certificate is not valid for '127.0.0.1'" in await refused(
        url=secure.url(secure.administrator, LOOPBACK), **known
    )
    stranger = certificates(tmp_path / "stranger", "localhost")
    assert "certificate verify failed" in await refused(
        url=secure.url(secure.administrator), ca_file=stranger.authority
    )
    assert "certificate verify failed" in await refused(url=secure.url(secure.administrator))


async def test_a_service_with_a_certificate_by_another_authority_is_not_let_in(
    secure: Secure, tmp_path: Path
) -> None:
    stranger = certificates(tmp_path / "stranger", "localhost", client="desk")
    await refused(
        url=secure.url("desk@"),
        ca_file=secure.certificates.authority,
        client_certificate=stranger.client,
    )


async def test_the_management_api_is_verified_by_the_same_authority(secure: Secure) -> None:
    url = secure.url(secure.administrator)
    address = f"https://localhost:{secure.management_port}"
    assert await Management(address, f"{url}?cafile={secure.certificates.authority}").version()
    with pytest.raises(Unavailable, match="certificate verify failed"):
        await Management(address, url).version()


async def test_the_page_on_certificates_does_what_it_says(secure: Secure, tmp_path: Path) -> None:
    made = secure.certificates
    stand_ins = {
        "library:a-long-random-text@": secure.administrator,
        "@broker.example/": f"@localhost:{secure.port}/",
        "127.0.0.1:5671": f"127.0.0.1:{secure.port}",
        "library@localhost": "desk@localhost",
        "/etc/trunkline/ca.pem": str(made.authority),
        "/etc/trunkline/library.pem": str(made.client),
    }
    page, url = PAGES / "use-certificates.md", secure.url(secure.administrator)
    async with followed(page, tmp_path, url, stand_ins=stand_ins):
        pass


# --- OAuth 2 ---

SCOPES = tuple(OAUTH_2["scopes"].split())


async def test_a_service_comes_with_a_token_and_can_do_what_its_scopes_say(
    secure: Secure, caplog: pytest.LogCaptureFixture
) -> None:
    known = {"ca_file": secure.certificates.authority}
    await served(url=secure.url(f"oauth:{secure.token(*SCOPES)}@"), **known)
    assert "discovery is off" not in caplog.text
    quiet = secure.token(*(scope for scope in SCOPES if "bus.control" not in scope))
    url = secure.url(f"oauth:{quiet}@")
    await served(lambda: "discovery is off" in caplog.text, url=url, **known)
    without = secure.token(*(scope for scope in SCOPES if "bus.requests" not in scope))
    settings = load_settings(
        topology="verify", connect_timeout=WAIT, url=secure.url(f"oauth:{without}@"), **known
    )
    async with Bus("desk", settings=settings) as bus:
        with pytest.raises(PermissionDenied, match=r"access to exchange 'bus\.requests'"):
            await bus.request(Ask(), timeout=WAIT)
        await until(
            lambda: "the broker refused a publish, and closed the channel" in caplog.text,
            "what was refused",
        )


async def test_the_page_on_oauth_2_does_what_it_says(secure: Secure, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(secure.token(*SCOPES), encoding="ascii")
    stand_ins = {
        "@broker.example/": f"@localhost:{secure.port}/",
        "/var/run/secrets/broker/token": str(token),
    }
    environment = {"BUS_CA_FILE": str(secure.certificates.authority)}
    page, url = PAGES / "use-oauth-2.md", secure.url("oauth@")
    async with followed(page, tmp_path, url, environment=environment, stand_ins=stand_ins):
        pass


@pytest.mark.parametrize("what", ["expired", "of another server"])
async def test_a_token_that_is_no_good_is_refused(secure: Secure, what: str) -> None:
    issuer = secure.issuer if what == "expired" else rsa.generate_private_key(65537, 2048)
    token = replace(secure, issuer=issuer).token(*SCOPES, expires=-60 if what == "expired" else 300)
    with pytest.raises(Unauthenticated):
        await served(url=secure.url(f"oauth:{token}@"), ca_file=secure.certificates.authority)


LIFE = 6
"""Seconds until the first token expires.

In this time the services must connect and receive the next token.
"""


@dataclass(frozen=True, kw_only=True)
class Renewed:
    """A service with a first token that expires soon, and the file for the next token."""

    way: str
    file: Path
    first: str
    following: str

    def bus(self, secure: Secure) -> Bus:
        self.file.write_text(self.first)
        settings = load_settings(
            topology="verify",
            url=secure.url("oauth@"),
            ca_file=secure.certificates.authority,
            password_file=self.file,
            connect_timeout=WAIT,
            start_timeout=WAIT if self.following else 1,
            fastlane=self.way != "plain",
        )
        own = FastStreamTransport(
            broker_of_its_own(settings, name="desk"), settings=settings, name="desk", own=True
        )
        return Bus("desk", settings=settings, transport=own if self.way == "faststream" else None)

    async def work(self, secure: Secure, ends: float) -> None:
        """Send without a pause until after the end of the first token, then register consumers.

        RabbitMQ 3.10 caches rights that it has granted. The second `serving` needs a fresh check.
        """
        async with self.bus(secure) as bus:
            if self.following:
                other = self.file.with_suffix(".next")
                other.write_text(self.following)
                other.replace(self.file)
                async with bus.serving(router):
                    while time.time() < ends + 1:
                        await bus.request(Ask(), timeout=WAIT)
                        await bus.publish(Asked(), timeout=WAIT)
                        await asyncio.sleep(0.05)  # a rate that does not load the machine
            else:
                await until(lambda: time.time() > ends + 1, "the token's end")
            async with bus.serving(router):
                await bus.request(Ask(), timeout=WAIT)


async def test_services_outlive_their_first_token_only_with_the_next_one_in_their_file(
    secure: Secure,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(renewal, "POLL_INTERVAL_SECONDS", 0.2)
    caplog.set_level(logging.DEBUG)
    scopes, ends = (*SCOPES, "rabbitmq.write:%2F/bus.events/desk.asked.v1"), time.time() + LIFE
    first, following = (secure.token(*scopes, expires=expires) for expires in (LIFE, 300))
    services = {
        way: Renewed(
            way=way, file=tmp_path / way, first=first, following=following if way != "left" else ""
        )
        for way in ("lane", "plain", "faststream", "left")
    }
    ended = await asyncio.gather(
        *(each.work(secure, ends) for each in services.values()), return_exceptions=True
    )
    assert ended[:3] == [None] * 3
    assert isinstance(ended[3], PermissionDenied | Unavailable)
    assert sum(": connected to " in each for each in caplog.messages) == 3 + 3 + 1 + 3
    # RabbitMQ 4.3 closes the three connections of the service whose token has ended. An earlier
    # RabbitMQ closes none.
    assert sum(" lost (" in each for each in caplog.messages) in (0, 3)
    assert not any(
        token in caplog.text + str([vars(record) for record in caplog.records])
        for token in (first, following)
    )
