"""Messages that an earlier version of the bus sent through RabbitMQ, read by this version.

The version is the commit `cedc6c9` of 23 November 2026. A change of the wire format that breaks
these tests breaks services that are upgraded one after the other (docs/how-to/upgrade.md).
"""

import json
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
from bus.messaging.envelope import Envelope, MessageRole
from bus.messaging.fault_record import read_record
from bus.security.current_grants import CurrentGrants
from bus.security.encryption import PayloadCipher
from bus.security.endpoint_guard import EndpointGuard
from bus.security.grants import Grants, GrantsSource, ServiceGrants
from bus.security.jwe import read_encryption_keys
from bus.security.keyring import Keyring
from bus.security.verifier import Verifier
from bus.transports.wire_format import AmqpMessage, decode

RECORDED = json.loads(
    (Path(__file__).parent / "messages_of_cedc6c9.json").read_text(encoding="utf-8")
)
CATALOG = Catalog()
GRANTS = Grants(
    {
        "till": ServiceGrants(call=frozenset({"depot.find", "depot.pack", "depot.seal"})),
        "depot": ServiceGrants(
            publish=frozenset({"depot.packed"}), consume=frozenset({"depot.packed"})
        ),
    }
)
ROLES: dict[str, MessageRole] = {
    "request": "request",
    "reply": "reply",
    "error": "reply",
    "job": "job",
    "progress": "update",
    "result": "update",
    "failure": "update",
    "event": "event",
    "retry copy": "job",
    "dead letter": "job",
    "encrypted job": "job",
    "encrypted result": "update",
}


class Shelf(Message):
    shelf: str


@contract("depot.find", version=1, idempotent=True, catalog=CATALOG)
class Find(Request[Shelf]):
    title: str


@contract("depot.pack", version=1, catalog=CATALOG)
class Pack(Job[Shelf]):
    number: int


@contract("depot.packed", version=1, catalog=CATALOG)
class WasPacked(Event):
    number: int


@contract("depot.seal", version=1, encrypted=True, catalog=CATALOG)
class Seal(Job[Shelf]):
    number: int


CONTRACTS: dict[str, Contract] = {
    each.type: each
    for each in (contract_of(Find), contract_of(Pack), contract_of(WasPacked), contract_of(Seal))
}


def message(name: str) -> Envelope:
    recorded: dict[str, Any] = RECORDED["messages"][name]
    return decode(
        AmqpMessage(
            body=recorded["body"].encode(), headers=recorded["headers"], **recorded["properties"]
        ),
        role=ROLES[name],
        queue="depot.jobs.pack.v1",
        received=RECORDED["recorded"] * 1000,
    )


def clock() -> float:
    return float(RECORDED["recorded"])


async def verifier(service: str) -> Verifier:
    async def source() -> bytes:
        return json.dumps(RECORDED["jwks"]).encode()

    ring = Keyring(service, source, list, clock=clock)
    await ring.refresh()
    grants = CurrentGrants(GrantsSource(lambda: "", lambda _: GRANTS))
    grants.read()
    return Verifier(service, ring, grants, clock=clock)


def test_every_recorded_message_is_decoded_without_a_fault() -> None:
    assert {name: message(name).fault for name in RECORDED["messages"]} == dict.fromkeys(ROLES)


@pytest.mark.parametrize("name", ["request", "job", "event", "retry copy", "encrypted job"])
async def test_a_message_of_an_earlier_version_is_admitted(name: str) -> None:
    envelope = message(name)
    guard = EndpointGuard(CONTRACTS[envelope.type], await verifier("depot"))
    assert guard.authorize(envelope) is None
    assert guard.authorize(envelope.replace(source="mail")) is not None


@pytest.mark.parametrize(
    ("name", "is_job"),
    [
        ("reply", False),
        ("error", False),
        ("progress", True),
        ("result", True),
        ("failure", True),
        ("encrypted result", True),
    ],
)
async def test_an_answer_of_an_earlier_version_is_accepted(name: str, *, is_job: bool) -> None:
    checks = await verifier("till")
    assert checks.check_reply(message(name), "depot", is_job=is_job) is None
    assert checks.check_reply(message(name), "mail", is_job=is_job) is not None


@pytest.mark.parametrize(
    ("name", "body"), [("encrypted job", b'{"number":4}'), ("encrypted result", b'{"shelf":"C2"}')]
)
def test_a_payload_that_an_earlier_version_encrypted_is_decrypted(name: str, body: bytes) -> None:
    keys = read_encryption_keys(json.dumps(RECORDED["encryption_keys"]))
    assert PayloadCipher(keys, everything=False).decrypt(message(name)).body == body


def test_a_dead_letter_of_an_earlier_version_has_its_record() -> None:
    record = read_record(message("dead letter"), {}, work_queue="depot.jobs.pack.v1")
    assert (record.by, record.code, record.attempts) == ("worker", "invalid_argument", 1)


async def test_a_dead_letter_of_an_earlier_version_is_admitted_when_it_is_replayed() -> None:
    guard = EndpointGuard(CONTRACTS["depot.pack.v1"], await verifier("depot"))
    assert guard.authorize(message("dead letter").replace(attempt=1)) is None
