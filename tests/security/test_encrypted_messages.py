"""Encrypted messages of complete buses, read and written by code that is not part of the bus."""

import hashlib
import json
from pathlib import Path

import pytest

from bus.messaging.topology.addresses import address_of
from bus.testing import MemoryBuses
from bus.transports.wire_format import AmqpMessage
from tests.jwe_by_hand import additional_data, b64, open_sealed, seal
from tests.polling import until
from tests.security.deployment import Deployment
from tests.security.recorded import (
    ENCRYPTED,
    KEY,
    MESSAGES_BY_TYPE,
    record_messages,
    record_refusals,
)
from tests.security.test_buses import Ledger
from tests.security.yard import parts_of


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


def aad_of(wire: AmqpMessage) -> bytes:
    return additional_data(
        wire.message_id or "",
        wire.type or "",
        wire.app_id or "",
        wire.headers.get("correlation-id", ""),
        wire.correlation_id,
    )


def test_each_encrypted_message_of_the_bus_opens_by_the_page(deployment: Deployment) -> None:
    bodies = {
        wire.type: json.loads(open_sealed(KEY, wire.body, aad_of(wire)))
        for wire in record_messages(deployment)
        if wire.headers.get("encryption") == "jwe"
    }
    assert bodies.keys() == MESSAGES_BY_TYPE.keys()
    assert bodies["ledger.add.v1"]["amount"] == 4
    assert bodies["ledger.add.v1.reply"] == {"total": 5}
    assert bodies["ledger.close.v1.reply"] == {"total": 1999}
    assert bodies["ledger.close.v1.progress"]["progress"] == 0.5


def test_the_error_of_an_encrypted_job_is_plain_json(deployment: Deployment) -> None:
    [failure] = [wire for wire in record_messages(deployment) if wire.type == "bus.error.v1"]
    assert "encryption" not in failure.headers
    assert json.loads(failure.body)["code"] == failure.headers["error"] == "permission_denied"


def test_the_ref_of_a_refusal_is_the_digest_that_the_page_describes(deployment: Deployment) -> None:
    """Compute `ref` with the standard library: the whole header, in base64url without padding."""
    (request, first), (job, second), (unsigned, third) = record_refusals(deployment)
    assert request.headers["authorization"].startswith("Bearer ")
    refs = [parts_of(wire.headers["proof"])[1]["ref"] for wire in (first, second, third)]
    assert refs == [
        digest(request.headers["authorization"]),
        digest(job.headers["proof"]),
        "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU",
    ]
    assert "authorization" not in unsigned.headers


async def test_the_bus_handles_an_encrypted_job_that_is_spelt_in_another_way() -> None:
    ledger = Ledger()
    async with MemoryBuses() as buses:
        await buses.serve(await buses.bus("ledger", **ENCRYPTED), ledger.router)
        aad = additional_data("f-1", "ledger.close.v1", "office", "", None)
        foreign = AmqpMessage(
            body=json.dumps(seal(KEY, b'{ "year": 1999 }', aad), indent=2).encode(),
            message_id="f-1",
            type="ledger.close.v1",
            app_id="office",
            headers={"encryption": "jwe"},
        )
        buses.broker.publish(foreign, address_of("job", "ledger.close.v1"))
        await until(lambda: ledger.closed == [1999], "the job to be handled")


def digest(text: str) -> str:
    return b64(hashlib.sha256(text.encode()).digest())
