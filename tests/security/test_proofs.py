"""Proofs and tokens: their lifetime, their caching, mutated messages, and key rotation."""

import os
import random
from collections import Counter
from typing import Any

import pytest

from bus.contracts.contract import contract_of
from bus.errors import Unauthenticated
from bus.messaging.envelope import Envelope
from bus.security.proofs import count_expiry_overrides
from bus.security.tokens import service_token
from tests.security.world import DAY, Ledger, World, codes, token_of, with_token
from tests.security.yard import NOW, Yard, jws, parts_of
from tests.unit.fakes import FakeDelivery, settle_down, virtual
from tests.unit.ledger import Add, CloseBooks

HOUR = 3600
MUTATIONS = int(os.environ.get("BUS_TEST_MUTATIONS", "5000"))
"""Mutated messages; the long form of the test has 100,000."""
MESSAGES = int(os.environ.get("BUS_TEST_ROTATED_MESSAGES", "5000"))
"""Messages that are sent during the rotation."""


async def handled(world: World, envelope: Envelope) -> Ledger:
    ledger = Ledger(world, envelope.role)
    ledger.receiver.on_delivery(FakeDelivery(envelope))
    await settle_down()
    return ledger


# --- Lifetime ---


@virtual
async def test_a_job_is_accepted_six_hours_after_it_was_signed() -> None:
    world = await World.started()
    job = world.job()
    world.yard.clock.now += 6 * HOUR
    ledger = await handled(world, job)
    assert len(ledger.handled) == 1


@virtual
async def test_a_job_is_refused_past_its_deadline() -> None:
    world = await World.started()
    job = world.job()
    world.yard.clock.now += DAY
    ledger = await handled(world, job)
    assert ledger.handled == []
    assert codes(ledger.sent)[0] == "deadline_exceeded"


@virtual
async def test_an_expired_job_is_accepted_again_by_an_operators_word_three_times() -> None:
    world = await World.started()
    job = world.job()
    for count in (1, 2, 3):
        world.yard.clock.now += 2 * DAY
        job = world.replayed(job, count=count)
        assert count_expiry_overrides(job) == count
        assert len((await handled(world, job)).handled) == 1


@virtual
async def test_an_operators_word_does_not_outlive_its_own_time() -> None:
    world = await World.started()
    job = world.job()
    world.yard.clock.now += 2 * DAY
    job = world.replayed(job, hours=1)
    world.yard.clock.now += 2 * HOUR
    ledger = await handled(world, job)
    assert ledger.handled == []
    assert codes(ledger.sent)[0] == "deadline_exceeded"


@virtual
async def test_a_retry_carries_the_proof_as_it_is() -> None:
    world = await World.started()
    job = world.job()
    ledger = Ledger(world, "job")

    async def fail(_: Any) -> Any:
        raise ValueError

    object.__setattr__(ledger.receiver.state.endpoint, "function", fail)
    ledger.receiver.on_delivery(FakeDelivery(job))
    await settle_down()
    copy = ledger.sent[0].envelope
    assert (copy.proof, copy.body, copy.attempt) == (job.proof, job.body, 2)
    assert ledger.gate.authorize(copy.replace(queue=job.queue)) is None


@pytest.mark.parametrize(
    ("skew", "accepted"), [(-29, True), (-31, False), (300, True), (329, True), (331, False)]
)
@virtual
async def test_a_token_bears_clocks_that_differ_by_half_a_minute(
    skew: float, accepted: bool
) -> None:
    """Set the receiver's clock `skew` seconds after the time at which the token was created."""
    world = await World.started()
    request = world.request()
    world.yard.clock.now += skew
    assert (len((await handled(world, request)).handled) == 1) is accepted


# --- Caching ---


@virtual
async def test_a_token_is_used_until_a_minute_before_its_end() -> None:
    world = await World.started()
    signer = world.signer("office")
    first = signer.authorization("ledger")
    world.yard.clock.now += 239
    assert signer.authorization("ledger") == first
    world.yard.clock.now += 1
    assert signer.authorization("ledger") != first


@virtual
async def test_a_clock_that_is_put_back_makes_a_new_token() -> None:
    world = await World.started()
    signer = world.signer("office")
    first = signer.authorization("ledger")
    world.yard.clock.now -= HOUR
    assert signer.authorization("ledger") != first


@virtual
async def test_a_token_is_checked_once_and_never_past_its_end() -> None:
    world = await World.started()
    gate = world.yard.gate("ledger", world.rings["ledger"], Add)
    request = world.request()
    assert gate.authorize(request) is None
    world.yard.public.clear()  # From now on no new token can be verified.
    world.rings["ledger"]._keys = {}
    assert gate.authorize(request) is None
    world.yard.clock.now += 331
    assert isinstance(gate.authorize(request), Unauthenticated)


@virtual
async def test_a_revoked_keys_tokens_are_forgotten() -> None:
    world = await World.started()
    gate = world.yard.gate("ledger", world.rings["ledger"], Add)
    request = world.request()
    assert gate.authorize(request) is None
    world.yard.public["office-1"]["compromised_since"] = 0
    world.yard.clock.now += 10
    await world.rings["ledger"].refresh()
    assert "compromised" in str(gate.authorize(request))


@virtual
async def test_the_memory_of_tokens_is_bounded() -> None:
    world = await World.started()
    verifier = world.yard.verifier("ledger", world.rings["ledger"])
    pair = world.rings["office"].signing_key()
    for number in range(1100):
        token = service_token(
            pair, issuer="office", audience="ledger", scope=f"ledger.add {number}", now=NOW
        )
        verifier.verify_token(world.request().replace(authorization=f"Bearer {token}"))
    assert len(verifier.tokens) == 1024


@virtual
async def test_a_refusal_is_counted_by_its_reason() -> None:
    world = await World.started()
    verifier = world.yard.verifier("ledger", world.rings["ledger"])
    for _ in range(2):
        error = Unauthenticated("the message has no token")
        verifier.record_rejection(world.request(), error)
    assert verifier.rejections == Counter({"unauthenticated: the message has no token": 2})


# --- Mutations ---


def altered(text: str, chance: random.Random) -> str:
    """Return the text after one to three edits."""
    letters = list(text)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(letters) + 1)
        what = chance.choice('ABCxyz019-_.=+/ \n{}":,é\x00')
        edit = chance.randrange(4)
        if edit == 0 and at < len(letters):
            letters[at] = what
        elif edit == 1:
            letters.insert(at, what)
        elif edit == 2 and at < len(letters):
            del letters[at]
        elif len(letters) > 2:
            other = chance.randrange(len(letters))
            letters[at % len(letters)], letters[other] = letters[other], letters[at % len(letters)]
    return "".join(letters)


def altered_bytes(body: bytes, chance: random.Random) -> bytes:
    data = bytearray(body)
    at = chance.randrange(len(data))
    edit = chance.randrange(3)
    if edit == 0:
        data[at] ^= 1 << chance.randrange(8)
    elif edit == 1:
        data.insert(at, chance.randrange(256))
    else:
        del data[at]
    return bytes(data)


FIELDS: tuple[str, ...] = ("id", "type", "source", "correlation_id", "reply_to")


def mutated(envelope: Envelope, others: list[Envelope], chance: random.Random) -> Envelope:
    """Return the message with one change.

    The change is in its body, an attribute, its expiry or its token. Or the token, or a part of
    it, is that of another message.
    """
    match chance.randrange(6):
        case 0:
            return envelope.replace(body=altered_bytes(envelope.body, chance))
        case 1:
            name = chance.choice(FIELDS)
            return envelope.replace(**{name: altered(getattr(envelope, name) or "x", chance)})
        case 2:
            return envelope.replace(
                expires=chance.choice(
                    [None, 1, (envelope.expires or 0) + chance.randint(-(10**9), 10**9)]
                )
            )
        case 3:
            return with_token(envelope, altered(token_of(envelope), chance))
        case 4:
            parts, foreign = (
                token_of(envelope).split("."),
                token_of(chance.choice(others)).split("."),
            )
            at = chance.randrange(3)
            parts[at] = foreign[at]
            return with_token(envelope, ".".join(parts))
        case _:
            return with_token(envelope, token_of(chance.choice(others)))


def signed_part(envelope: Envelope) -> tuple[Any, ...]:
    """Return the signed attributes and the token of a message.

    Equal results mean the same signature: an Ed25519 signature has one valid form. An ECDSA
    signature has several.
    """
    return (*(getattr(envelope, name) for name in (*FIELDS, "body", "expires")), token_of(envelope))


def test_no_mutation_is_accepted_that_is_not_the_same_byte_by_byte() -> None:
    virtual(mutations)(random.Random(20261123))


async def mutations(chance: random.Random) -> None:
    world = await World.started()
    gate = world.yard.gate("ledger", world.rings["ledger"], CloseBooks)
    good = [world.job(id=f"m-{number}", body=b'{"year": %d}' % number) for number in range(20)]
    others = [*good, world.request(), world.event(), world.job("mail", id="m-1")]
    accepted = 0
    for number in range(MUTATIONS):
        envelope = good[number % len(good)]
        mutation = mutated(envelope, others, chance)
        same = signed_part(mutation) == signed_part(envelope)
        assert (gate.authorize(mutation) is None) is same, mutation
        accepted += same
    assert accepted < MUTATIONS / 10
    assert all(gate.authorize(envelope) is None for envelope in good)


# --- Rotation ---

ROTATE_EVERY = 30.0


@virtual
async def test_a_rotation_every_30_seconds_refuses_nothing_and_everything_that_is_retired() -> None:
    """Send messages during many rotations, and verify them at once and an hour later.

    Each key is published a minute before its first use.
    """
    yard = Yard()
    begin = yard.clock.now
    yard.key("ledger")
    count = 12 + int(MESSAGES * 0.06 / ROTATE_EVERY)
    for number in range(count):
        begins = begin + number * ROTATE_EVERY
        yard.key("office", f"office-{number}", not_before=begins, retired_at=begins + ROTATE_EVERY)
    published = dict(yard.public)
    world = World(yard, {})
    from_office(world)
    visible(yard, published, begin)
    world.rings = {name: await yard.started(name) for name in ("ledger", "office")}
    gate = yard.gate("ledger", world.rings["ledger"], CloseBooks)
    requests = yard.gate("ledger", world.rings["ledger"], Add)
    sent: list[Envelope] = []
    for number in range(MESSAGES):
        yard.clock.now = begin + number * 0.06
        visible(yard, published, yard.clock.now)
        # Every 12 s. A bus reads its keys every 60 s, because real keys live longer.
        if number % 200 == 0:
            await world.rings["ledger"].refresh()
            await world.rings["office"].refresh()
        job = world.job(id=f"m-{number}", expires=int((yard.clock.now + DAY) * 1000))
        assert gate.authorize(job) is None
        assert requests.authorize(world.request(id=f"r-{number}")) is None
        sent += [job] if number % 10 == 0 else []
    kids = {parts_of(token_of(job))[0]["kid"] for job in sent}
    assert len(kids) >= MESSAGES * 0.06 / ROTATE_EVERY
    yard.clock.now += HOUR
    assert all(gate.authorize(job) is None for job in sent)
    retired = [late(world, job, published) for job in sent[: len(sent) // 2]]
    assert all(isinstance(gate.authorize(job), Unauthenticated) for job in retired)
    for kid in kids:
        published[kid]["compromised_since"] = begin
    visible(yard, published, yard.clock.now)
    await world.rings["ledger"].refresh()
    assert all(isinstance(gate.authorize(job), Unauthenticated) for job in sent)


def from_office(world: World) -> None:
    world.yard.grant("office", call=(contract_of(Add), contract_of(CloseBooks)))


def visible(yard: Yard, published: dict[str, dict[str, Any]], now: float) -> None:
    """Publish the keys that are valid at `now`, or become valid in the next minute."""
    yard.public = {
        kid: each for kid, each in published.items() if each.get("not_before", 0) <= now + 60
    }


def late(world: World, job: Envelope, published: dict[str, dict[str, Any]]) -> Envelope:
    """Return the message with a signature that is made after its key was retired."""
    kid = parts_of(token_of(job))[0]["kid"]
    place = list(published).index(kid) - 1  # The first key is the ledger's.
    header, claims, _ = parts_of(token_of(job))
    return with_token(
        job,
        jws(
            header,
            {**claims, "iat": published[kid]["retired_at"]},
            world.yard.private["office"][place],
        ),
    )
