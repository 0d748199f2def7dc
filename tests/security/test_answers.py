"""Replies and job updates: a forged reply is dropped, and the genuine reply still arrives."""

import asyncio
from typing import Any

import pytest

from bus.errors import DeadlineExceeded, NotFound, PermissionDenied, Unauthenticated
from bus.messaging.envelope import Envelope, Progress, error_reply, progress_update, reply
from bus.messaging.ports.transport import PublishOutcome
from bus.messaging.topology.names import reply_queue
from bus.middleware.sign import sign
from bus.middleware.stacks import client_stack
from bus.runtime.client import Client
from bus.runtime.pending_request import check_reply
from bus.runtime.reply_receiver import MAX_CHECKED_BYTES, MAX_CHECKS
from bus.security.grants import Grants, ServiceGrants
from bus.settings import load_settings
from tests.security.world import Ledger, World
from tests.security.yard import jws
from tests.unit.fakes import (
    FakeDelivery,
    FakeTransport,
    runtime_of,
    security_of,
    settle_down,
    virtual,
)
from tests.unit.ledger import Add, CloseBooks, Total

SETTINGS = load_settings(request_timeout=10, publish_timeout=10)


class Office:
    """A client with a transport that delivers its requests, and any reply that a test makes."""

    def __init__(self, world: World) -> None:
        self.asked: list[Envelope] = []
        self.transport = FakeTransport(answer=self._note)
        self.verifier = world.yard.verifier("office", world.rings["office"])
        security = security_of(world.signer("office"), self.verifier)
        runtime = runtime_of(
            self.transport,
            service="office",
            security=security,
            settings=SETTINGS,
            clock=world.yard.clock,
        )
        layers = [*client_stack(clock=world.yard.clock), sign(world.signer("office"))]
        self.client = Client(runtime, layers)

    def _note(self, sent: Envelope) -> PublishOutcome | None:
        self.asked.append(sent)
        return None

    def hear(self, answer: Envelope) -> None:
        self.transport.deliver(FakeDelivery(answer))


def answered(
    world: World, request: Envelope, *, by: str = "ledger", to: str = "office", amount: int = 7
) -> Envelope:
    answer = reply(request, Total(total=amount), source=by)
    return answer.replace(authorization=world.signer(by).authorization(to, for_replies=True))


async def asked(world: World) -> tuple[Office, "asyncio.Task[Total]", Envelope]:
    office = Office(world)
    await office.client.start()
    call = asyncio.ensure_future(office.client.request(Add()))
    await settle_down()
    return office, call, office.asked[0]


FORGERIES: dict[str, Any] = {
    "without a token": lambda world, request: answered(world, request).replace(authorization=None),
    "by another service": lambda world, request: answered(world, request, by="mail"),
    "by another service, in the asked one's name": lambda world, request: answered(
        world, request, by="mail"
    ).replace(source="ledger"),
    "with a token for another service": lambda world, request: answered(world, request, to="mail"),
    "with a request's token": lambda world, request: answered(world, request).replace(
        authorization=world.signer("ledger").authorization("office")
    ),
    "with the request's own token": lambda world, request: answered(world, request).replace(
        authorization=request.authorization
    ),
    "with a token that is cut off": lambda world, request: answered(world, request).replace(
        authorization=world.signer("ledger").authorization("office", for_replies=True)[:-5]
    ),
    "with the proof of another answer": lambda world, request: answered(world, request).replace(
        authorization=None,
        proof=world.signer("ledger").sign_reply(answered(world, request), "office").proof,
    ),
    "with a proof for another": lambda world, request: world.signer("ledger").sign_reply(
        answered(world, request).replace(authorization=None), "mail"
    ),
    "with a job's proof": lambda world, request: answered(world, request).replace(
        authorization=None, proof=world.job().proof
    ),
    "an unsigned refusal": lambda world, request: error_reply(
        request, Unauthenticated("no"), source="ledger"
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES, ids=list(FORGERIES))
@virtual
async def test_a_forged_reply_is_dropped_and_the_right_one_arrives(forgery: str) -> None:
    world = await World.started()
    office, call, request = await asked(world)
    office.hear(FORGERIES[forgery](world, request))
    await settle_down()
    assert not call.done()
    office.hear(answered(world, request))
    assert (await call).total == 7
    assert sum(office.verifier.rejections.values()) == 1


@virtual
async def test_who_hears_only_a_forged_reply_is_told_so_at_the_deadline() -> None:
    world = await World.started()
    office, call, request = await asked(world)
    office.hear(answered(world, request, by="mail"))
    with pytest.raises(
        DeadlineExceeded,
        match="A reply was rejected: app_id is not the service that was called",
    ):
        await call


@virtual
async def test_a_submitter_of_a_refused_result_is_told_so_at_the_deadline() -> None:
    world = await World.started()
    office = Office(world)
    await office.client.start()
    handle = await office.client.submit(CloseBooks())
    (job,) = office.asked
    office.hear(reply(job, Total(total=4711), source="ledger"))
    why = "The job may have ended. An update of the job was rejected: the message has no proof"
    with pytest.raises(DeadlineExceeded, match=f"no result within 5 s. {why}"):
        await handle.result(timeout=5)
    with pytest.raises(DeadlineExceeded, match=rf"no update for \d+ \w+\. {why}"):
        await anext(handle.updates())


@pytest.mark.parametrize(
    ("by", "audience", "why"),
    [
        ("mail", "office", "app_id is not the service that was called"),
        ("ledger", "mail", "the claim aud of the proof does not match the message"),
    ],
)
@virtual
async def test_a_submitter_is_told_why_the_result_was_refused(
    by: str, audience: str, why: str
) -> None:
    world = await World.started()
    office = Office(world)
    await office.client.start()
    handle = await office.client.submit(CloseBooks())
    answer = reply(office.asked[0], Total(total=4711), source=by)
    office.hear(world.signer(by).sign_reply(answer, audience))
    with pytest.raises(DeadlineExceeded, match=f"An update of the job was rejected: {why}"):
        await handle.result(timeout=5)


@virtual
async def test_a_refused_update_before_a_valid_one_is_not_told() -> None:
    world = await World.started()
    office = Office(world)
    await office.client.start()
    handle = await office.client.submit(CloseBooks())
    (job,) = office.asked
    update = progress_update(job, Progress(progress=0.5), source="ledger")
    office.hear(update)
    office.hear(world.signer("ledger").sign_reply(update, "office"))
    with pytest.raises(DeadlineExceeded, match=r"no result within 5 s\. The job continues"):
        await handle.result(timeout=5)


@virtual
async def test_a_reply_to_another_request_is_late() -> None:
    world = await World.started()
    office, call, request = await asked(world)
    office.hear(answered(world, request.replace(id="m-2")))
    assert office.client.replies.late == 1
    office.hear(answered(world, request))
    assert (await call).total == 7


@virtual
async def test_a_refusal_that_its_service_proves_arrives_at_once() -> None:
    world = await World.started()
    office, call, request = await asked(world)
    office.hear(
        world.signer("ledger").sign_reply(
            error_reply(request, Unauthenticated("the message has no token"), source="ledger"),
            "office",
        )
    )
    with pytest.raises(Unauthenticated, match="the message has no token"):
        await call


FAKES: dict[str, dict[str, Any]] = {
    "without a token": {"authorization": None},
    "that is malformed": {"authorization": None, "fault": "content_type is not application/json"},
}


@pytest.mark.parametrize("fake", FAKES)
@virtual
async def test_the_refusal_of_a_fake_with_a_requests_id_does_not_end_the_call(fake: str) -> None:
    """Send a forgery with the id and the reply queue of a request that is in flight.

    A service that is called while the request is handled can read the id in `causation-id`.
    """
    world = await World.started()
    office, call, request = await asked(world)
    ledger = Ledger(world, "request")
    ledger.receiver.on_delivery(
        FakeDelivery(request.replace(queue=ledger.receiver.state.spec.queue.name, **FAKES[fake]))
    )
    await settle_down()
    (refusal,) = ledger.sent
    assert (refusal.address.routing_key, refusal.envelope.in_reply_to) == (
        request.reply_to,
        request.id,
    )
    office.hear(refusal.envelope)
    await settle_down()
    assert not call.done()
    office.hear(answered(world, request))
    assert (await call).total == 7


@pytest.mark.parametrize("is_token_cached", [False, True])
@virtual
async def test_a_wrong_proof_beside_a_valid_token_is_refused_whether_or_not_the_token_is_cached(
    is_token_cached: bool,
) -> None:
    world = await World.started()
    office, call, request = await asked(world)
    if is_token_cached:
        office.hear(answered(world, request))
        await call
        call = asyncio.ensure_future(office.client.request(Add()))
        await settle_down()
        request = office.asked[-1]
    foreign = request.replace(authorization="Bearer another token")
    refusal = world.signer("ledger").sign_reply(
        error_reply(request, NotFound("no such year"), source="ledger"), "office", refused=foreign
    )
    token = world.signer("ledger").authorization("office", for_replies=True)
    office.hear(refusal.replace(authorization=token))
    await settle_down()
    assert not call.done()
    office.hear(answered(world, request))
    assert (await call).total == 7


@virtual
async def test_the_refusal_of_a_fake_with_a_jobs_id_does_not_end_the_job() -> None:
    world = await World.started()
    office = Office(world)
    await office.client.start()
    handle = await office.client.submit(CloseBooks())
    (job,) = office.asked
    ledger = Ledger(world, "job")
    for each in (
        job.replace(proof=None),
        world.job(id=job.id, reply_to=job.reply_to).replace(source="office", body=b"{}"),
        job,
    ):
        ledger.receiver.on_delivery(
            FakeDelivery(each.replace(queue=ledger.receiver.state.spec.queue.name))
        )
    await settle_down()
    for update in ledger.sent:
        if update.envelope.in_reply_to:
            office.hear(update.envelope)
    assert (await handle.result(timeout=5)).total == 1
    assert len(ledger.handled) == 1


@virtual
async def test_a_request_that_is_refused_says_so_at_once() -> None:
    world = await World.started()
    office, call, request = await asked(world)
    world.yard.grants = Grants({"office": ServiceGrants()})
    ledger = Ledger(world, "request")
    ledger.receiver.on_delivery(
        FakeDelivery(request.replace(queue=ledger.receiver.state.spec.queue.name))
    )
    await settle_down()
    (refusal,) = ledger.sent
    office.hear(refusal.envelope)
    with pytest.raises(PermissionDenied, match="office has no right"):
        await call


@virtual
async def test_a_sender_with_the_grant_is_told_that_the_scope_of_its_token_is_too_narrow(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = await World.started()
    _office, call, request = await asked(world)
    ledger = Ledger(world, "request")
    narrow = world.forged(
        request.replace(queue=ledger.receiver.state.spec.queue.name),
        claims={"scope": "ledger.close ledger.total"},
    )
    ledger.receiver.on_delivery(FakeDelivery(narrow))
    await settle_down()
    text = "office has the grant ledger.add, but the scope of its token does not list it. "
    assert text in caplog.text
    (refusal,) = ledger.sent
    # The caller sent another token, so it drops the refusal. The author of the narrow token reads:
    with pytest.raises(PermissionDenied, match=f"^ledger.add.v1: {text}"):
        check_reply(refusal.envelope, "ledger.add.v1")
    call.cancel()


@virtual
async def test_a_sender_without_the_grant_is_not_told_about_its_scope() -> None:
    world = await World.started()
    world.yard.grants = Grants({"office": ServiceGrants()})
    ledger = Ledger(world, "request")
    queue = ledger.receiver.state.spec.queue.name
    for claims in ({"scope": "ledger.close"}, {"scope": "ledger.add"}):
        error = ledger.receiver.state.guard.authorize(
            world.forged(world.request(queue=queue), claims=claims)
        )
        assert str(error) == "office has no right to ledger.add"


@virtual
async def test_a_job_that_is_refused_says_so_after_it_has_waited_once() -> None:
    world = await World.started()
    office = Office(world)
    await office.client.start()
    handle = await office.client.submit(CloseBooks())
    (job,) = office.asked
    world.yard.grants = Grants({"office": ServiceGrants()})
    ledger = Ledger(world, "job")
    ledger.receiver.on_delivery(
        FakeDelivery(job.replace(queue=ledger.receiver.state.spec.queue.name))
    )
    await settle_down()
    (waiting,) = ledger.sent
    assert waiting.envelope.in_reply_to is None
    ledger.receiver.on_delivery(FakeDelivery(waiting.envelope))
    await settle_down()
    for update in ledger.sent:
        if update.envelope.in_reply_to:
            office.hear(update.envelope)
    with pytest.raises(PermissionDenied, match="office has no right"):
        await handle.result(timeout=5)


@pytest.mark.parametrize(
    ("reply_to", "is_told"),
    [("any.queue.of.the.attacker", False), (reply_queue("office", "1"), True)],
)
def test_the_retry_of_a_job_whose_check_failed_is_reported_only_to_a_checked_address(
    reply_to: str, is_told: bool
) -> None:
    @virtual
    async def run() -> None:
        world = await World.started()
        ledger = Ledger(world, "job")

        def fail(_envelope: Envelope) -> None:
            raise ValueError("a fault of the check")

        ledger.receiver.state.guard.authorize = fail  # type: ignore[method-assign, assignment]
        job = world.job(queue=ledger.receiver.state.spec.queue.name)
        ledger.receiver.on_delivery(FakeDelivery(job.replace(reply_to=reply_to)))
        await settle_down()
        exchanges = [each.address.exchange for each in ledger.sent]
        assert exchanges == ["ledger.retry.1s", *(["bus.updates"] if is_told else [])]

    run()


@virtual
async def test_a_reply_by_a_key_that_is_new_waits_for_it() -> None:
    world = await World.started()
    office, call, request = await asked(world)
    world.yard.public["ledger-1"]["retired_at"] = world.yard.clock.now + 5
    world.yard.key("ledger", "ledger-2", not_before=world.yard.clock.now + 5)
    world.yard.clock.now += 10
    world.rings["ledger"] = await world.yard.started("ledger")
    office.hear(answered(world, request))
    assert (await call).total == 7
    assert not office.verifier.rejections


@pytest.mark.parametrize(
    ("size", "limit"), [(1000, MAX_CHECKS), (MAX_CHECKED_BYTES // 4, 4), (MAX_CHECKED_BYTES + 1, 1)]
)
@virtual
async def test_answers_with_unknown_keys_are_kept_in_a_limited_number_while_the_keys_are_read(
    size: int, limit: int
) -> None:
    world = await World.started()
    world.yard.clock.now += 11  # the keys were read long enough ago
    office, call, request = await asked(world)
    handle = await office.client.submit(CloseBooks())
    key_server = asyncio.Event()

    async def read_slowly() -> bytes:
        await key_server.wait()
        return world.yard.text()

    world.rings["office"]._source = read_slowly
    token = jws({"alg": "EdDSA", "kid": "unknown", "typ": "msg+jwt"}, {}, world.key("mail"))
    update = progress_update(office.asked[-1], Progress(progress=0.5), source="ledger")
    forgery = update.replace(body=bytes(size), proof=token)
    for number in range(limit + 50):
        office.hear(forgery.replace(id=f"forged-{number}"))
    assert len(office.client._receiver._checks) == limit
    assert sum(office.verifier.rejections.values()) == 50
    with pytest.raises(DeadlineExceeded, match="too many replies with unknown keys wait"):
        await handle.result(timeout=1)
    office.hear(answered(world, request))
    assert (await call).total == 7, "an answer with a known key does not wait"
    key_server.set()
    await settle_down()
    assert not office.client._receiver._checks
    assert sum(office.verifier.rejections.values()) == limit + 50


@virtual
async def test_a_jobs_updates_are_its_services() -> None:
    world = await World.started()
    office = Office(world)
    await office.client.start()
    handle = await office.client.submit(CloseBooks())
    (job,) = office.asked

    def update(by: str, progress: float) -> Envelope:
        return world.signer(by).sign_reply(
            progress_update(job, Progress(progress=progress), source=by), "office"
        )

    office.hear(update("mail", 0.9))
    office.hear(update("ledger", 0.4).replace(body=b'{"progress": 0.99}'))
    office.hear(update("ledger", 0.5))
    office.hear(progress_update(job, Progress(progress=0.8), source="ledger"))
    # This token is valid on any reply, so it proves nothing about this update.
    token = world.signer("ledger").authorization("office", for_replies=True)
    office.hear(
        progress_update(job, Progress(progress=0.7), source="ledger").replace(authorization=token)
    )
    office.hear(reply(job, Total(total=4711), source="ledger").replace(authorization=token))
    done = error_reply(job, NotFound("no such year"), source="ledger")
    office.hear(done)
    office.hear(world.signer("mail").sign_reply(done.replace(source="mail"), "office"))
    office.hear(world.signer("ledger").sign_reply(done, "office"))
    assert [each.progress async for each in handle.updates()] == [0.5]
    with pytest.raises(NotFound, match="no such year"):
        await handle.result()
    assert sum(office.verifier.rejections.values()) == 7
