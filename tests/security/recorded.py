"""Messages that buses with authentication and encryption send, for implementations of others."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bus.errors import PermissionDenied, Unauthenticated
from bus.messaging.topology.addresses import Address
from bus.security.jwe import new_encryption_key
from bus.testing import MemoryBuses
from bus.transports.wire_format import AmqpMessage
from tests.security.deployment import Deployment
from tests.security.test_buses import Ledger, on_virtual_time, running
from tests.unit.ledger import Add, CloseBooks

KEY = new_encryption_key("ring-1")
ENCRYPTED = {"encryption_keys": json.dumps({"keys": [KEY]}), "encrypt": "everything"}
MESSAGES_BY_TYPE = {
    "ledger.add.v1": "request",
    "ledger.add.v1.reply": "reply",
    "ledger.close.v1": "job",
    "ledger.close.v1.progress": "progress",
    "ledger.close.v1.reply": "result",
    "ledger.closed.v1": "event",
}


@asynccontextmanager
async def encrypting(
    deployment: Deployment,
) -> AsyncIterator[tuple[MemoryBuses, Ledger, list[AmqpMessage]]]:
    """Run the ledger with encrypted payloads. Yield a list that collects all messages."""
    async with running(deployment, **ENCRYPTED) as (buses, ledger, _):
        sent: list[AmqpMessage] = []
        publish = buses.broker.publish

        def recording(wire: AmqpMessage, address: Address) -> Any:
            sent.append(wire)
            return publish(wire, address)

        buses.broker.publish = recording  # type: ignore[method-assign]
        yield buses, ledger, sent


def record_messages(deployment: Deployment) -> list[AmqpMessage]:
    """Return one encrypted message of each kind, and the failure of a job."""
    found: list[AmqpMessage] = []

    async def scene() -> None:
        async with encrypting(deployment) as (buses, ledger, sent):
            office = await buses.bus("office", **deployment.of("office", **ENCRYPTED))
            assert (await office.request(Add(amount=4))).total == 5
            assert (await (await office.submit(CloseBooks(year=1999))).result()).total == 1999
            ledger.broken = True
            with pytest.raises(PermissionDenied, match="the year is closed"):
                await (await office.submit(CloseBooks(year=2000))).result()
            # The handle has asked whether the service has the job in a store.
            found.extend(wire for wire in sent if ".bus-jobs." not in (wire.type or ""))

    on_virtual_time(scene())
    return found


def record_refusals(deployment: Deployment) -> list[tuple[AmqpMessage, AmqpMessage]]:
    """Return three refused messages and their refusals: a request, a job, an unsigned request."""
    found: list[tuple[AmqpMessage, AmqpMessage]] = []
    # The sender's own file lets it send. The receiver's file refuses it.
    own = deployment.grants.with_name("own.toml")
    own.write_text('[services.mail]\ncall = ["ledger.add", "ledger.close"]\n')

    async def scene() -> None:
        async with encrypting(deployment) as (buses, _, sent):
            mail = await buses.bus("mail", **deployment.of("mail", grants=own, **ENCRYPTED))
            with pytest.raises(PermissionDenied, match=r"no right to ledger\.add"):
                await mail.request(Add())
            with pytest.raises(PermissionDenied, match=r"no right to ledger\.close"):
                await (await mail.submit(CloseBooks())).result()
            nobody = await buses.bus("office", auth="off", **ENCRYPTED)
            with pytest.raises(Unauthenticated, match="the message has no token"):
                await nobody.request(Add())
            refusals = [wire for wire in sent if wire.type == "bus.error.v1"]
            by_id = {wire.message_id: wire for wire in sent}
            found.extend((by_id[wire.correlation_id], wire) for wire in refusals)

    on_virtual_time(scene())
    return found


def as_json(wire: AmqpMessage) -> dict[str, Any]:
    """Return a message as a client in another language has it."""
    names = ("message_id", "type", "app_id", "correlation_id", "reply_to")
    return {
        **{name: getattr(wire, name) for name in names},
        "headers": dict(wire.headers),
        "body": b64encode(wire.body).decode(),
    }
