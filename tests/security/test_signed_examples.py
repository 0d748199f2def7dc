"""The signed examples of the wire format's page, verified with its keys, byte for byte."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bus.contracts.contract import (
    Catalog,
    Contract,
    Event,
    Job,
    Message,
    Request,
    contract,
    contract_of,
)
from bus.errors import Undecodable
from bus.messaging.envelope import Envelope, MessageRole
from bus.security.current_grants import CurrentGrants
from bus.security.encryption import PayloadCipher
from bus.security.endpoint_guard import EndpointGuard
from bus.security.grants import Grants, GrantsSource, ServiceGrants
from bus.security.jwe import read_encryption_keys
from bus.security.keyring import Keyring
from bus.security.signer import Signer
from bus.security.verifier import Verifier
from bus.transports.wire_format import AmqpMessage, decode

PAGE = Path(__file__).parents[2] / "docs/reference/wire-examples.md"
CATALOG = Catalog()
SENT = 1_798_794_000.0
ROLES: dict[str, MessageRole] = {
    "Signed request": "request",
    "Signed reply": "reply",
    "Signed event": "event",
    "Signed job": "job",
    "Signed result of a job": "update",
    "Signed error": "reply",
    "Refusal": "reply",
    "Signed failure of a job": "update",
    "Parked copy of a job": "job",
    "Replay with an expiry override": "job",
    "Encrypted event": "event",
}


class Found(Message):
    shelf: str


@contract("library.find", version=1, catalog=CATALOG)
class Find(Request[Found]):
    title: str


@contract("library.returned", version=1, catalog=CATALOG)
class Returned(Event):
    title: str


@contract("library.scan", version=1, catalog=CATALOG)
class Scan(Job[None]):
    title: str


CONTRACTS: dict[str, Contract] = {
    each.type: each for each in map(contract_of, (Find, Returned, Scan))
}
GRANTS = Grants(
    {
        "reader": ServiceGrants(call=frozenset({"library.find", "library.scan"})),
        "library": ServiceGrants(
            publish=frozenset({"library.returned"}), consume=frozenset({"library.returned"})
        ),
    }
)


def shown(title: str) -> dict[str, Any]:
    """Return the JSON below a heading of the page."""
    found = re.search(
        rf"^### {re.escape(title)}\n\n```json\n(.*?)\n```",
        PAGE.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    assert found is not None, title
    value: dict[str, Any] = json.loads(found[1])
    return value


def message(title: str, body: bytes | None = None) -> Envelope:
    """Return the decoded example, with no spaces in its body, as the page specifies."""
    value = shown(title)
    sent = json.dumps(value["body"], separators=(",", ":")).encode() if body is None else body
    return decode(
        AmqpMessage(body=sent, headers=value["headers"], **value["properties"]),
        role=ROLES[title],
        queue="library.jobs.scan.v1",
        received=int(SENT * 1000),
    )


async def verifier(service: str, now: float = SENT) -> tuple[Verifier, Signer]:
    async def source() -> bytes:
        return json.dumps(shown("The public keys")).encode()

    ring = Keyring(service, source, list, clock=lambda: now)
    await ring.refresh()
    grants = CurrentGrants(GrantsSource(lambda: "", lambda _: GRANTS))
    grants.read()
    return Verifier(service, ring, grants, clock=lambda: now), Signer(
        service, ring, grants, clock=lambda: now
    )


@pytest.mark.parametrize(
    "title", ["Signed request", "Signed event", "Signed job", "Parked copy of a job"]
)
async def test_what_the_page_shows_is_let_in_and_nothing_else_in_its_place(title: str) -> None:
    checks, _ = await verifier("library")
    gate = EndpointGuard(CONTRACTS[message(title).type], checks)
    assert gate.authorize(message(title)) is None
    assert (
        gate.authorize(
            message(title).replace(source="library" if title != "Signed event" else "reader")
        )
        is not None
    )
    if title != "Signed request":
        assert gate.authorize(message(title, b'{"title": "Emma"}')) is not None, (
            "a space is another body"
        )


@pytest.mark.parametrize("title", ["Signed reply", "Signed result of a job", "Signed error"])
async def test_the_answers_that_the_page_shows_are_the_asked_services(title: str) -> None:
    checks, _ = await verifier("reader")
    assert checks.check_reply(message(title), "library") is None
    assert checks.check_reply(message(title), "shop") is not None


@pytest.mark.parametrize(
    ("title", "header", "refused", "is_job"),
    [
        ("Refusal", "authorization", "Signed request", False),
        ("Signed failure of a job", "proof", "Signed job", True),
    ],
)
async def test_the_refusals_that_the_page_shows_name_the_refused_message_by_ref(
    title: str, header: str, refused: str, is_job: bool
) -> None:
    checks, _ = await verifier("reader")
    credential = shown(refused)["headers"][header]
    answer = message(title)
    assert checks.check_reply(answer, "library", is_job=is_job, proofs=[credential]) is None
    others = [credential.removeprefix("Bearer ") + "x", "another"]
    assert checks.check_reply(answer, "library", is_job=is_job, proofs=others) is not None


async def test_the_override_that_the_page_shows_admits_the_expired_job_until_its_new_end() -> None:
    title = "Replay with an expiry override"
    late = SENT + 7 * 24 * 3600 + 60

    async def admits(now: float, **changes: str) -> bool:
        checks, _ = await verifier("library", now)
        gate = EndpointGuard(CONTRACTS["library.scan.v1"], checks)
        return gate.authorize(message(title).replace(**changes)) is None

    assert await admits(late)
    assert not await admits(late + 2 * 3600), "the new time has passed"
    assert not await admits(late, queue="library.jobs.scan.v2"), "it is for one queue"


async def test_the_encrypted_message_that_the_page_shows_is_decrypted_with_its_keys() -> None:
    title = "Encrypted event"
    checks, _ = await verifier("library")
    event = message(title)
    assert EndpointGuard(CONTRACTS[event.type], checks).authorize(event) is None
    keys = read_encryption_keys(json.dumps(shown("The encryption key, an example")))
    cipher = PayloadCipher(keys, everything=True)
    assert cipher.decrypt(event).body == b'{"title":"Emma"}'
    with pytest.raises(Undecodable):
        cipher.decrypt(event.replace(id="00000010-2222-4222-8222-222222222222"))
