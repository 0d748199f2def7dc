"""Attacks with an operator's expiry override."""

from typing import Any

from bus.messaging.envelope import Envelope
from bus.security.proofs import digest
from tests.security.attacks.forging import Attack, later
from tests.security.world import DAY, OPERATOR, World
from tests.security.yard import jws, parts_of


def replay(**changes: Any) -> Attack:
    """Return an attack with an expired job and an invalid expiry override."""

    def attack(world: World) -> Envelope:
        job = world.job()
        world.yard.clock.now += 2 * DAY
        return world.replayed(job, **changes)

    return attack


def counter_forged(
    by: str = OPERATOR, header: dict[str, Any] | None = None, **claims: Any
) -> Attack:
    def attack(world: World) -> Envelope:
        envelope = replay()(world)
        old_header, old_claims, _ = parts_of(envelope.expiry_override or "")
        return envelope.replace(
            expiry_override=jws(
                {**old_header, **(header or {})}, {**old_claims, **claims}, world.key(by)
            )
        )

    return attack


def another_proofs_word(world: World) -> Envelope:
    other = world.replayed(world.job(id="m-2"))
    job = world.job()
    world.yard.clock.now += 2 * DAY
    return job.replace(expiry_override=other.expiry_override, expires=other.expires)


def longer_than_given(world: World) -> Envelope:
    job = replay()(world)
    return job.replace(expires=(job.expires or 0) + 1)


def a_proof_as_expiry_override(world: World) -> Envelope:
    job = replay()(world)
    return job.replace(expiry_override=job.proof)


MORE_TIME: dict[str, Attack] = {
    "more time, by a service": counter_forged("office", {"kid": "office-1"}, iss="office"),
    "more time, by the operator's name and a service's key": counter_forged("office"),
    "a fourth time": replay(count=4),
    "a time that is none": counter_forged(n=0),
    "a time that is true": counter_forged(n=True),
    "more time in another queue": replay(queue="mail.jobs.close.v1"),
    "more time for another job": another_proofs_word,
    "more time for another proof": counter_forged(prf=digest(b"another")),
    "more time that is over": later(2 * 3600, replay()),
    "more time than the operator gave": longer_than_given,
    "more time for ever": replay(hours=24 * 400),
    "more time without a reason": replay(reason=" "),
    "more time without a name": replay(actor=""),
    "more time, and another body": lambda world: replay()(world).replace(body=b"{}"),
    "more time, and wider rights": lambda world: world.replayed(world.job("mail")),
    "more time, by a proof": a_proof_as_expiry_override,
    "more time, with an algorithm of none": counter_forged(header={"alg": "none"}),
}
