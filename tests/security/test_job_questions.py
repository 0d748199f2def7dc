"""Questions about durable jobs: the sender must be the submitter, or have a right."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bus.errors import Cancelled, NotFound, Unauthenticated
from bus.messaging.envelope import Envelope
from bus.messaging.jobs.markers import new_marker
from bus.messaging.jobs.questions import cancel_contract, get_contract
from bus.messaging.topology.addresses import Address, address_of, replay_address
from bus.runtime.bus import Bus
from bus.testing import MemoryBuses, MemoryStore, wall_clock
from bus.transports.wire_format import AmqpMessage
from tests.security.deployment import Deployment
from tests.security.recorded import ENCRYPTED
from tests.security.test_buses import Ledger, on_virtual_time
from tests.unit.ledger import CloseBooks

QUEUE = "ledger.jobs.close.v1"


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


@asynccontextmanager
async def running(
    deployment: Deployment, *, is_idle: bool = False, **settings: Any
) -> AsyncIterator[tuple[MemoryBuses, MemoryStore, Bus]]:
    """Run the ledger with a store. Yield the buses, the store and the bus of the submitter.

    If it is idle, it records jobs and starts none.
    """
    async with MemoryBuses(clock=wall_clock) as buses:
        store = MemoryStore(clock=wall_clock)
        if is_idle:
            store.jobs.claim = _nothing  # type: ignore[method-assign]
        owner = await buses.bus("ledger", store=store, **deployment.of("ledger", **settings))
        await buses.serve(owner, Ledger().router)
        yield buses, store, await buses.bus("office", **deployment.of("office", **settings))


def test_only_the_submitter_and_a_service_with_the_right_know_of_a_job(
    deployment: Deployment,
) -> None:
    async def scene() -> None:
        async with running(deployment) as (buses, _, office):
            job = await office.submit(CloseBooks(year=1999))
            assert (await job.result(timeout=30)).total == 1999
            assert (await office.job(CloseBooks, job.id).status()).state == "succeeded"
            mail = await buses.bus("mail", **deployment.of("mail"))
            handle = mail.job(CloseBooks, job.id, submitter="office")
            for ask in (handle.status, handle.cancel, handle.result):
                with pytest.raises(NotFound, match="no such job of the submitter 'office'"):
                    await ask()
            text = deployment.grants.read_text()
            deployment.grants.write_text(
                text.replace("[services.mail]", '[services.mail]\njobs = ["read:ledger.close"]')
            )
            await asyncio.sleep(60)  # the grants are read again
            assert (await handle.status()).submitter == "office"
            assert (await handle.result(timeout=30)).total == 1999
            with pytest.raises(NotFound):
                await handle.cancel()

    on_virtual_time(scene())


def test_a_service_with_the_right_to_cancel_cancels_the_job_of_another_service(
    deployment: Deployment,
) -> None:
    text = deployment.grants.read_text()
    deployment.grants.write_text(
        text.replace("[services.mail]", '[services.mail]\njobs = ["cancel:ledger.close"]')
    )

    async def scene() -> None:
        async with running(deployment, is_idle=True) as (buses, _, office):
            job = await office.submit(CloseBooks(year=1999))
            mail = await buses.bus("mail", **deployment.of("mail"))
            handle = mail.job(CloseBooks, job.id, submitter="office")
            status = await handle.cancel(reason="wrong year")
            assert (status.state, status.cancelled_by) == ("cancelled", "mail")
            with pytest.raises(NotFound):
                await handle.status()
            with pytest.raises(Cancelled, match="cancelled by mail: wrong year"):
                await job.result(timeout=60)

    on_virtual_time(scene())


async def _nothing(*_: Any, **__: Any) -> list[Any]:
    return []


def test_a_question_without_a_token_or_with_the_token_of_a_reply_is_rejected(
    deployment: Deployment,
) -> None:
    async def scene() -> None:
        async with running(deployment) as (buses, _, office):
            job = await office.submit(CloseBooks(year=1999))
            await job.result(timeout=30)
            unsigned = await buses.bus("office", auth="off")
            with pytest.raises(Unauthenticated, match="the message has no token"):
                await unsigned.job(CloseBooks, job.id).status()
            # The ledger gets the token of each reply that the office sends to it.
            sent: list[AmqpMessage] = []
            publish = buses.broker.publish

            def recording(wire: AmqpMessage, address: Address) -> Any:
                sent.append(wire)
                return publish(wire, address)

            buses.broker.publish = recording  # type: ignore[method-assign]
            reply = office._security.identity.signer.authorize_reply(
                Envelope(id="1", type="x", role="reply", source="office"), "ledger"
            )
            question = Envelope(
                id="q-1",
                type=get_contract("ledger").type,
                role="request",
                source="office",
                body=b'{"submitter": "office", "id": "%s", "type": "ledger.close.v1"}'
                % job.id.encode(),
                reply_to=office._client._reply_to,
                authorization=reply.authorization,
            )
            address = address_of("request", question.type)
            await office._transport.send(question, address, timeout=1)
            await buses.settled()
            assert [wire.headers.get("error") for wire in sent[1:]] == ["permission_denied"]

    on_virtual_time(scene())


def test_a_marker_that_the_service_has_not_signed_proves_nothing(deployment: Deployment) -> None:
    async def scene() -> None:
        async with running(deployment) as (buses, store, office):
            marker = new_marker("ledger", now=wall_clock())
            await office._transport.send(marker, replay_address(QUEUE), timeout=1)
            await asyncio.sleep(5)
            assert marker.id not in store._beats
            assert buses.broker.depth(f"{QUEUE}.dead") == 0
            with pytest.raises(NotFound):
                await office.job(CloseBooks, "never").status()

    on_virtual_time(scene())


def test_the_result_and_the_progress_of_an_encrypted_job_stay_encrypted_until_the_asker_reads_them(
    deployment: Deployment,
) -> None:
    async def scene() -> None:
        settings: dict[str, Any] = {**ENCRYPTED}
        async with running(deployment, **settings) as (buses, _, office):
            sent: list[bytes] = []
            publish = buses.broker.publish

            def recording(wire: AmqpMessage, address: Address) -> Any:
                sent.append(wire.body)
                return publish(wire, address)

            buses.broker.publish = recording  # type: ignore[method-assign]
            job = await office.submit(CloseBooks(year=1999))
            await job.result(timeout=30)
            other = await buses.bus("office", **deployment.of("office", **ENCRYPTED))
            handle = other.job(CloseBooks, job.id)
            assert [each.note async for each in handle.updates()] == ["half"]
            assert (await handle.result(timeout=30)).total == 1999
            assert not [body for body in sent if b"1999" in body or b"half" in body]

    on_virtual_time(scene())


def test_the_refusal_of_a_changed_copy_of_a_job_does_not_end_the_handle_of_the_job(
    deployment: Deployment,
) -> None:
    async def scene() -> None:
        async with running(deployment, is_idle=True) as (buses, _, office):
            sent = recorded(buses)
            job = await office.submit(CloseBooks(year=1999))
            await buses.settled()
            (wire,) = [each for each in sent if each.type == "ledger.close.v1"]
            for copy in (
                replace(wire, body=b'{"year": 2001}'),
                replace(wire, body=b"x" * 20_000_000),
                replace(wire, headers={**wire.headers, "attempt": -5}),
            ):
                buses.broker.publish(copy, address_of("job", "ledger.close.v1"))
                waiting = asyncio.create_task(job.result(timeout=600))
                await asyncio.sleep(20)
                assert not waiting.done()
                waiting.cancel()
            refusals = [each for each in sent if "error" in each.headers]
            assert len(refusals) == 3
            assert (await job.cancel()).state == "cancelled"
            with pytest.raises(Cancelled):
                await job.result(timeout=30)

    on_virtual_time(scene())


def test_a_job_that_the_service_has_refused_ends_with_the_refusal(deployment: Deployment) -> None:
    async def scene() -> None:
        async with running(deployment) as (buses, _, _office):
            unsigned = await buses.bus("office", auth="off")
            job = await unsigned.submit(CloseBooks(year=1999))
            with pytest.raises(Unauthenticated, match="the message has no proof"):
                await job.result(timeout=30)

    on_virtual_time(scene())


def recorded(buses: MemoryBuses) -> list[AmqpMessage]:
    """Return the list to which each published message is added."""
    sent: list[AmqpMessage] = []
    publish = buses.broker.publish

    def recording(wire: AmqpMessage, address: Address) -> Any:
        sent.append(wire)
        return publish(wire, address)

    buses.broker.publish = recording  # type: ignore[method-assign]
    return sent


def test_a_token_that_was_captured_cancels_no_job(deployment: Deployment) -> None:
    async def scene() -> None:
        async with running(deployment, is_idle=True) as (buses, _, office):
            job = await office.submit(CloseBooks(year=1999))
            other = await office.submit(CloseBooks(year=2000))
            sent = recorded(buses)
            await other.status()
            await other.cancel(reason="wrong year")
            get, cancel = [each for each in sent if each.reply_to is not None]
            type_ = cancel_contract("ledger").type
            about = {"submitter": "office", "id": job.id, "type": "ledger.close.v1"}
            proof = json.loads(cancel.body)["proof"]
            assert isinstance(proof, str)
            bodies = [about, about | {"proof": proof}, about | {"proof": proof, "reason": "x"}]
            for number, body in enumerate(bodies):
                for captured in (get, cancel):
                    forged = replace(
                        captured,
                        type=type_,
                        message_id=f"forged-{number}-{captured.type}",
                        body=json.dumps(body).encode(),
                    )
                    del sent[:]
                    buses.broker.publish(forged, address_of("request", type_))
                    await asyncio.sleep(5)
                    answers = [each.headers.get("error") for each in sent[1:]]
                    assert answers == ["unauthenticated"]
            assert (await job.status()).state == "queued"

    on_virtual_time(scene())
