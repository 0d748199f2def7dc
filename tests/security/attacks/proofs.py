"""Attacks on the binding of an event or job to its proof, and on keys."""

from hashlib import sha256

from bus.messaging.envelope import Envelope
from bus.messaging.topology.names import reply_queue
from bus.security.proofs import digest
from tests.security.attacks.forging import (
    Attack,
    claims,
    doubled,
    keyed,
    later,
    on_the_wire,
    payload,
    swapped,
)
from tests.security.world import BODY, DAY, OPERATOR, World
from tests.security.yard import NOW


def of_another_job(world: World) -> Envelope:
    return world.job().replace(proof=world.job(id="m-2").proof)


def passed_off_as_plain(kind: str) -> Attack:
    """Return an attack that removes the encryption header of an encrypted message.

    The encrypted payload is JSON, which a contract without required fields accepts.
    """
    sealed = {
        "body": b'{"protected": "e30", "iv": "", "ciphertext": "", "tag": ""}',
        "headers": {"encryption": "jwe"},
    }
    return lambda world: getattr(world, kind)(**sealed).replace(headers={})


PROOFS: dict[str, Attack] = {
    # --- A proof and its message
    "the body swapped": swapped(body=b'{"year": 2001}'),
    "the body of an event swapped": swapped("event", body=b"{}"),
    "a byte behind the body": swapped(body=BODY + b" "),
    "the type swapped": swapped(type="ledger.reopen.v1"),
    "the version swapped": swapped(type="ledger.close.v2"),
    "the id swapped": swapped(id="m-2"),
    "the sender swapped": swapped(source="mail"),
    "the correlation id swapped": swapped(correlation_id="c-2"),
    "the correlation id removed": swapped(correlation_id=""),
    "reply_to swapped": swapped(reply_to=reply_queue("mail", "1")),
    "reply_to swapped within the sender's": swapped(reply_to=reply_queue("office", "2")),
    "reply_to removed": swapped(reply_to=None),
    "reply_to of another, proven": lambda world: world.job(reply_to=reply_queue("mail", "1")),
    "an encrypted job passed off as plain": passed_off_as_plain("job"),
    "an encrypted event passed off as plain": passed_off_as_plain("event"),
    "a plain job passed off as encrypted": swapped(headers={"encryption": "jwe"}),
    "the deadline removed": swapped(expires=None),
    "the deadline extended": swapped(expires=int((NOW + 2 * DAY) * 1000)),
    "the deadline a text": on_the_wire("job", expires="9999999999999"),
    "the deadline NaN": on_the_wire("job", expires=float("nan")),
    "the deadline huge": on_the_wire("job", expires=2**62),
    "the proof a number": on_the_wire("job", proof=7),
    "the proof a list": on_the_wire("job", proof=["a"]),
    "another job's proof": of_another_job,
    "a job in another's queue": lambda world: world.forged(
        world.job().replace(type="ledger.reopen.v1"), claims={"type": "ledger.reopen.v1"}
    ),
    "a proof with another's key": lambda world: world.forged(world.job(), by="mail"),
    "a proof with an operator's key": lambda world: world.forged(
        world.job().replace(source=OPERATOR),
        header={"kid": "ops-1"},
        claims={"iss": OPERATOR, "rto": None},
        by=OPERATOR,
    ),
    "a sender without the right": lambda world: world.job("mail"),
    "an event of another than its owner": lambda world: world.event("office"),
    "a proof without an end": claims(exp=None),
    "a proof for ever": lambda world: world.job(expires=int((NOW + 400 * DAY) * 1000)),
    "a proof without a beginning": claims(iat=None),
    "a beginning in the future": claims(iat=NOW + 3600),
    "a beginning that is a text": claims(iat=str(NOW)),
    "a digest in other letters": claims(dig=digest(BODY).lower()),
    "a digest in hex": claims(dig=sha256(BODY).hexdigest()),
    "no digest": claims(dig=None),
    "an audience in a job's proof": claims(aud="ledger"),
    "a claim of a proof that is there twice": doubled("job", "dig"),
    "a payload that is a list": payload("[]"),
    "a payload with a huge number": payload('{"iat": ' + "9" * 4000 + "}"),
    "after the deadline": later(2 * DAY, lambda world: world.job()),
    # --- Keys and their times
    "signed before the key was valid": keyed(claims(), not_before=NOW + 60),
    "signed after the key was retired": keyed(claims(), retired_at=NOW - 60),
    "signed since the key is compromised": keyed(claims(), compromised_since=NOW - 60),
    "a token by a retired key": keyed(claims("request"), retired_at=NOW - 60),
    "a key for something else": keyed(claims(), use="enc"),
    "a key that says another algorithm": keyed(claims(), alg="ES256"),
    "a key that has become another's": keyed(claims(), iss="mail"),
    "a key that was published with its secret": keyed(claims(), d="AAAA"),
}
