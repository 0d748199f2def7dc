"""The attack table: each is refused, its handler is never called, and the log shows nothing of what was sent."""

import json
import logging
import socket
from collections.abc import Callable
from hashlib import sha256
from hmac import digest as hmac_digest
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bus.envelope import Envelope
from bus.tokens import digest
from bus.topology import reply_queue
from bus.transports.wire import decode, encode
from tests.security.world import BODY, DAY, OPERATOR, SECRET, Ledger, World, codes, token_of, with_token
from tests.security.yard import NOW, base64, bytes_of, jws, parts_of
from tests.unit.fakes import FakeDelivery, settle_down, virtual

Attack = Callable[[World], Envelope]
REFUSALS = {"unauthenticated", "permission_denied", "invalid_argument", "deadline_exceeded", "unimplemented"}


def request(**header: Any) -> Attack:
    return lambda world: world.forged(world.request(), header=header)


def claims(kind: str = "job", **claims: Any) -> Attack:
    return lambda world: world.forged(getattr(world, kind)(), claims=claims)


def headed(header: str, kind: str = "request") -> Attack:
    """A header as text, for what no library would write."""

    def attack(world: World) -> Envelope:
        envelope = getattr(world, kind)()
        return with_token(envelope, jws(header, parts_of(token_of(envelope))[1], world.key(envelope.source)))

    return attack


def payload(text: str, kind: str = "job") -> Attack:
    def attack(world: World) -> Envelope:
        envelope = getattr(world, kind)()
        return with_token(envelope, jws(parts_of(token_of(envelope))[0], text, world.key(envelope.source)))

    return attack


def token(change: Callable[[str], str], kind: str = "request") -> Attack:
    """The text of the token changed."""

    def attack(world: World) -> Envelope:
        envelope = getattr(world, kind)()
        return with_token(envelope, change(token_of(envelope)))

    return attack


def swapped(kind: str = "job", **attributes: Any) -> Attack:
    """The message changed under its proof or token."""
    return lambda world: getattr(world, kind)().evolve(**attributes)


def mac(material: str) -> Attack:
    """HS256, with a public key as the secret: what everybody knows."""

    def attack(world: World) -> Envelope:
        envelope, jwk = world.request(), world.yard.public["office-1"]
        public = Ed25519PublicKey.from_public_bytes(bytes_of(jwk["x"]))
        secrets = {
            "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "raw": public.public_bytes(Encoding.Raw, PublicFormat.Raw),
            "jwk": json.dumps(jwk).encode(),
        }
        header, claims, _ = parts_of(token_of(envelope))
        signed = f"{base64(json.dumps({**header, 'alg': 'HS256'}))}.{base64(json.dumps(claims))}"
        return with_token(envelope, f"{signed}.{base64(hmac_digest(secrets[material], signed.encode(), sha256))}")

    return attack


def on_the_wire(kind: str, **headers: Any) -> Attack:
    """A header that no envelope can hold."""

    def attack(world: World) -> Envelope:
        envelope = getattr(world, kind)()
        wire = encode(envelope)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        raw = {name: value for name, value in {**wire.headers, **names}.items() if value is not None}
        sent = type(wire)(**{**{name: getattr(wire, name) for name in wire.__dataclass_fields__}, "headers": raw})
        return decode(sent, traffic=envelope.traffic, queue=envelope.queue, received=int(NOW * 1000))

    return attack


def unsigned(traffic: str) -> Attack:
    return lambda world: getattr(world, traffic)().evolve(authorization=None, proof=None)


def later(seconds: float, attack: Attack) -> Attack:
    """Sent now, and taken out later."""

    def wait(world: World) -> Envelope:
        envelope = attack(world)
        world.yard.clock.now += seconds
        return envelope

    return wait


def replay(**changes: Any) -> Attack:
    """A job that expired, with an operator's word in which something is wrong."""

    def attack(world: World) -> Envelope:
        job = world.job()
        world.yard.clock.now += 2 * DAY
        return world.replayed(job, **changes)

    return attack


def counter_forged(by: str = OPERATOR, header: dict[str, Any] | None = None, **claims: Any) -> Attack:
    def attack(world: World) -> Envelope:
        envelope = replay()(world)
        old_header, old_claims, _ = parts_of(envelope.counter_proof or "")
        return envelope.evolve(counter_proof=jws({**old_header, **(header or {})}, {**old_claims, **claims}, world.key(by)))

    return attack


def another_proofs_word(world: World) -> Envelope:
    other = world.replayed(world.job(id="m-2"))
    job = world.job()
    world.yard.clock.now += 2 * DAY
    return job.evolve(counter_proof=other.counter_proof, expires=other.expires)


def longer_than_given(world: World) -> Envelope:
    job = replay()(world)
    return job.evolve(expires=(job.expires or 0) + 1)


def a_proof_as_counter_proof(world: World) -> Envelope:
    job = replay()(world)
    return job.evolve(counter_proof=job.proof)


def a_token_as_proof(world: World) -> Envelope:
    return world.job().evolve(proof=token_of(world.request()))


def a_proof_as_token(world: World) -> Envelope:
    return with_token(world.request(), token_of(world.job()))


def a_replys_token(world: World) -> Envelope:
    """The ledger's own answers, and the office's, are no requests."""
    return world.request().evolve(authorization=world.signer("office").authorization("ledger", answers=True))


def an_updates_proof(world: World) -> Envelope:
    """What the office once proved as an answer."""
    job = world.job(proof=None)
    return world.signer("office").proven(job.evolve(proof=None), "ledger")


def of_another_job(world: World) -> Envelope:
    return world.job().evolve(proof=world.job(id="m-2").proof)


def by_a_stranger(world: World) -> Envelope:
    """A key that is in nobody's set, under a key id that is."""
    stranger = type(world.yard)().key("office")
    header, claims, _ = parts_of(token_of(world.request()))
    return with_token(world.request(), jws(header, claims, stranger))


def embedded(world: World) -> Envelope:
    """The forger's own key, in the header."""
    yard = type(world.yard)()
    stranger = yard.key("office")
    header, claims, _ = parts_of(token_of(world.request()))
    return with_token(world.request(), jws({**header, "jwk": yard.public["office-1"]}, claims, stranger))


def es256_zero(world: World) -> Envelope:
    """The signature of psychic paper: r = s = 0."""
    world.yard.key("office", "office-ec", algorithm="ES256")
    header, claims, _ = parts_of(token_of(world.request()))
    signed = f"{base64(json.dumps({**header, 'alg': 'ES256', 'kid': 'office-ec'}))}.{base64(json.dumps(claims))}"
    return with_token(world.request(), f"{signed}.{base64(bytes(64))}")


def keyed(attack: Attack, **members: Any) -> Attack:
    """With other members of the office's public key."""

    def change(world: World) -> Envelope:
        world.yard.public["office-1"].update(members)
        return attack(world)

    return change


def flipped(at: int, kind: str) -> Attack:
    """One bit of one part."""

    def flip(text: str) -> str:
        parts = text.split(".")
        data = bytearray(bytes_of(parts[at]))
        data[len(data) // 2] ^= 1
        parts[at] = base64(bytes(data))
        return ".".join(parts)

    return token(flip, kind)


def as_json_form(text: str) -> str:
    protected, claims, signature = text.split(".")
    return json.dumps({"payload": claims, "signatures": [{"protected": protected, "signature": signature}]})


def doubled(kind: str, name: str) -> Attack:
    """A claim that is there twice: which one counts?"""

    def attack(world: World) -> Envelope:
        envelope = getattr(world, kind)()
        header, claims, _ = parts_of(token_of(envelope))
        text = json.dumps(claims)
        return with_token(
            envelope, jws(header, f"{text[:-1]}, {json.dumps(name)}: {json.dumps(claims[name])}}}", world.key(envelope.source))
        )

    return attack


def non_canonical(text: str) -> str:
    """The last character has bits that no byte takes; decoders that do not look let several texts pass for one signature."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]


ATTACKS: dict[str, Attack] = {
    # --- algorithms
    "alg none": request(alg="none"),
    "alg None": request(alg="None"),
    "alg nOnE": request(alg="nOnE"),
    "alg none, and no signature": token(lambda text: f"{base64(json.dumps({**parts_of(text)[0], 'alg': 'none'}))}.{text.split('.')[1]}."),
    "an empty signature": token(lambda text: text[: text.rindex(".") + 1]),
    "HS256 with the public key's PEM": mac("pem"),
    "HS256 with the public key's DER": mac("der"),
    "HS256 with the public key's bytes": mac("raw"),
    "HS256 with the public key's JWK": mac("jwk"),
    "an algorithm that is not the key's": request(alg="ES256"),
    "an algorithm that is another name of the key's": request(alg="Ed25519"),
    "an algorithm that is no text": request(alg=["EdDSA"]),
    "no algorithm": request(alg=None),
    "an all-zero ECDSA signature": es256_zero,
    # --- key ids
    "an unknown kid": request(kid="office-2"),
    "a kid that is a path": request(kid="../../../dev/null"),
    "a kid that is SQL": request(kid="x' UNION SELECT 'key'--"),
    "a kid of 10 kB": request(kid="k" * 10_000),
    "a kid of 1 MB": request(kid="k" * 1_000_000),
    "a kid that is null": headed('{"alg": "EdDSA", "kid": null, "typ": "svc+jwt"}'),
    "a kid that is a number": request(kid=1),
    "no kid": request(kid=None),
    # --- headers
    "an embedded key": embedded,
    "jku": request(jku="https://127.0.0.1:9/jwks.json"),
    "x5u": request(x5u="https://127.0.0.1:9/chain.pem"),
    "x5c": request(x5c=["MII"]),
    "an unknown critical parameter": request(crit=["exp2"], exp2=1),
    "an empty crit": request(crit=[]),
    "b64 false": request(b64=False, crit=["b64"]),
    "cty": request(cty="JWT"),
    "zip": request(zip="DEF"),
    "no typ": request(typ=None),
    "typ JWT": request(typ="JWT"),
    "typ in other letters": request(typ="SVC+JWT"),
    "a header with alg twice": headed('{"alg": "none", "alg": "EdDSA", "kid": "office-1", "typ": "svc+jwt"}'),
    "a header with kid twice": headed('{"alg": "EdDSA", "kid": "mail-1", "kid": "office-1", "typ": "svc+jwt"}'),
    "a header that is a list": headed('["EdDSA"]'),
    "a header that is no JSON": headed("EdDSA"),
    "a header that is nested deeply": headed("[" * 700),
    # --- form
    "a service token as a proof": a_token_as_proof,
    "a proof as a service token": a_proof_as_token,
    "a reply's token as a request's": a_replys_token,
    "an answer's proof as a job's": an_updates_proof,
    "the JSON form": token(as_json_form),
    "an encrypted token": token(lambda text: f"{text}.AAAA.AAAA"),
    "padding": token(lambda text: f"{text}="),
    "a space in it": token(lambda text: text.replace(".", ". ", 1)),
    "a line end behind it": token(lambda text: f"{text}\n"),
    "bytes behind it": token(lambda text: f"{text}AAAA"),
    "base64 that is not canonical": token(non_canonical),
    "the other alphabet of base64": token(lambda text: text.replace("-", "+").replace("_", "/") + "+"),
    "letters that are no ASCII": token(lambda text: "é" + text),
    "a payload that is no UTF-8": token(lambda text: f"{text.split('.')[0]}.{base64(bytes([0xFF, 0xFE]))}.{text.split('.')[2]}"),
    "a token of 1 MB": token(lambda text: text + "A" * 1_000_000),
    "another scheme": lambda world: world.request().evolve(authorization=f"Basic {token_of(world.request())}"),
    "no scheme": lambda world: world.request().evolve(authorization=token_of(world.request())),
    "an empty token": lambda world: world.request().evolve(authorization="Bearer "),
    "no token": unsigned("request"),
    "a job without a proof": unsigned("job"),
    "an event without a proof": unsigned("event"),
    "a flipped bit in a token's header": flipped(0, "request"),
    "a flipped bit in a token's claims": flipped(1, "request"),
    "a flipped bit in a token's signature": flipped(2, "request"),
    "a flipped bit in a proof's header": flipped(0, "job"),
    "a flipped bit in a proof's claims": flipped(1, "job"),
    "a flipped bit in a proof's signature": flipped(2, "job"),
    # --- a token's claims
    "no audience": claims("request", aud=None),
    "another service's token": claims("request", aud="mail"),
    "a list of audiences with ours in it": claims("request", aud=["mail", "ledger"]),
    "no scope": claims("request", scope=None),
    "a scope that is a list": claims("request", scope=["ledger.add"]),
    "a scope without this right": claims("request", scope="ledger.close"),
    "no jti": claims("request", jti=None),
    "no issuer": claims("request", iss=None),
    "an unknown issuer": claims("request", iss="nobody"),
    "an issuer that is a list": claims("request", iss=["office"]),
    "an issuer with another's key": lambda world: world.forged(world.request(), by="mail"),
    "another's key under its own id": lambda world: world.forged(world.request(), header={"kid": "mail-1"}, by="mail"),
    "an issuer who is not the sender": swapped("request", source="mail"),
    "an issuer in the future": claims("request", iat=NOW + 3600, exp=NOW + 3700),
    "a token that is not valid yet": claims("request", nbf=NOW + 3600),
    "a token that has expired": later(331, lambda world: world.request()),
    "a token without an end": claims("request", exp=None),
    "a token for a year": claims("request", exp=NOW + 365 * DAY),
    "an end that is a text": claims("request", exp="9999999999"),
    "an end that is NaN": payload(
        '{"iss": "office", "aud": "ledger", "scope": "ledger.add", "jti": "1", "iat": 1700000000, "nbf": 1, "exp": NaN}', "request"
    ),
    "an end that is infinite": claims("request", exp=float("inf")),
    "an end that is true": claims("request", exp=True),
    "a claim that is there twice": doubled("request", "scope"),
    "a scope that the issuer was never granted": lambda world: world.forged(
        world.request().evolve(source="mail", reply_to=reply_queue("mail", "1")),
        header={"kid": "mail-1"},
        claims={"iss": "mail", "scope": "ledger.add ledger.close"},
        by="mail",
    ),
    "a token of an operator": lambda world: world.forged(
        world.request().evolve(source=OPERATOR, reply_to=reply_queue(OPERATOR, "1")),
        header={"kid": "ops-1"},
        claims={"iss": OPERATOR},
        by=OPERATOR,
    ),
    "a reply to somebody else": swapped("request", reply_to=reply_queue("mail", "1")),
    "a key that nobody knows, under an id that all know": by_a_stranger,
    # --- a proof and its message
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
    "the deadline removed": swapped(expires=None),
    "the deadline extended": swapped(expires=int((NOW + 2 * DAY) * 1000)),
    "the deadline a text": on_the_wire("job", expires="9999999999999"),
    "the deadline NaN": on_the_wire("job", expires=float("nan")),
    "the deadline huge": on_the_wire("job", expires=2**62),
    "the proof a number": on_the_wire("job", proof=7),
    "the proof a list": on_the_wire("job", proof=["a"]),
    "another job's proof": of_another_job,
    "a job in another's queue": lambda world: world.forged(
        world.job().evolve(type="ledger.reopen.v1"), claims={"type": "ledger.reopen.v1"}
    ),
    "a proof with another's key": lambda world: world.forged(world.job(), by="mail"),
    "a proof with an operator's key": lambda world: world.forged(
        world.job().evolve(source=OPERATOR), header={"kid": "ops-1"}, claims={"iss": OPERATOR, "rto": None}, by=OPERATOR
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
    # --- keys and their times
    "signed before the key was valid": keyed(claims(), not_before=NOW + 60),
    "signed after the key was retired": keyed(claims(), retired_at=NOW - 60),
    "signed since the key is compromised": keyed(claims(), compromised_since=NOW - 60),
    "a token by a retired key": keyed(claims("request"), retired_at=NOW - 60),
    "a key for something else": keyed(claims(), use="enc"),
    "a key that says another algorithm": keyed(claims(), alg="ES256"),
    "a key that has become another's": keyed(claims(), iss="mail"),
    "a key that was published with its secret": keyed(claims(), d="AAAA"),
    # --- more time, by an operator
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
    "more time, and another body": lambda world: replay()(world).evolve(body=b"{}"),
    "more time, and wider rights": lambda world: world.replayed(world.job("mail")),
    "more time, by a proof": a_proof_as_counter_proof,
    "more time, with an algorithm of none": counter_forged(header={"alg": "none"}),
}


PARKED_IN = "ledger.retry.30s"


async def come_back(world: World, ledger: Ledger) -> None:
    """What waited for its key to become known is delivered again; once, and no more."""
    copy = ledger.sent.pop().envelope
    world.yard.clock.now += 30
    ledger.receiver.take(FakeDelivery(copy.evolve(queue=ledger.receiver.queue.name)))
    await settle_down()


async def refused(attack: Attack, log: pytest.LogCaptureFixture) -> None:
    world = await World.started()
    envelope = attack(world)
    world.rings["ledger"] = await world.yard.started("ledger")
    ledger, delivery = Ledger(world, envelope.traffic), FakeDelivery(envelope)
    with log.at_level(logging.DEBUG):
        ledger.receiver.take(delivery)
        await settle_down()
        assert delivery.acks == 1
        if [each.address.exchange for each in ledger.sent] == [PARKED_IN]:
            await come_back(world, ledger)
    assert ledger.handled == []
    assert ledger.sent, "nobody was told"
    assert set(codes(ledger.sent)) <= REFUSALS
    shown = log.text + "".join(str(record.__dict__) for record in log.records)
    assert SECRET not in shown
    for each in (envelope.proof, envelope.authorization, envelope.counter_proof):
        assert (
            each is None
            or len(each) < 20
            or all(part not in shown for part in str(each).removeprefix("Bearer ").split(".") if len(part) > 8)
        )


@pytest.mark.parametrize("attack", ATTACKS, ids=list(ATTACKS))
def test_an_attack_is_refused(attack: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object) -> None:
        raise AssertionError("it looked somewhere for a key")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    monkeypatch.setattr(socket.socket, "connect", nowhere)
    virtual(refused)(ATTACKS[attack], caplog)


def test_there_are_enough_of_them() -> None:
    assert len(ATTACKS) >= 60


@pytest.mark.parametrize("kind", ["request", "job", "event"])
@virtual
async def test_what_is_in_order_is_handled(kind: str) -> None:
    world = await World.started()
    ledger, delivery = Ledger(world, kind), FakeDelivery(getattr(world, kind)())
    ledger.receiver.take(delivery)
    await settle_down()
    assert len(ledger.handled) == 1
    assert delivery.acks == 1
    assert all(each.envelope.error is None for each in ledger.sent)
