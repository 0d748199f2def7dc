"""Signed messages for `scripts/wire_examples.py`, with publicly known keys and a fixed time.

Ed25519 is deterministic: the same text and key always give the same signature. Therefore each run
prints the same messages.
"""

import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from aio_pika.abc import AbstractIncomingMessage, AbstractQueue
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from bus.contracts.contract import encode
from bus.errors import BusError, Expired, NotFound, PermissionDenied
from bus.messaging.envelope import Envelope, error_reply, reply
from bus.messaging.fault_record import PARKED
from bus.messaging.topology.addresses import (
    Address,
    address_of,
    replay_address,
    reply_address,
    retry_address,
    update_address,
)
from bus.messaging.topology.names import reply_queue, service_of
from bus.security.encryption import ENCRYPTION, JWE
from bus.security.jws import base64
from bus.security.keys import KeyPair, read_jwk
from bus.security.private_keys import read_private
from bus.security.proofs import expiry_override, message_proof
from bus.security.signer import BEARER, REPLY_SCOPE
from bus.security.tokens import service_token
from bus.settings import load_settings
from bus.transports.rabbitmq import RabbitMQTransport

__all__ = ["PREFACE", "decoded", "key_blocks", "signed_messages"]

Jwk = dict[str, str]
PREFACE = """## Signed messages

With `BUS_AUTH=on` the messages above also carry a token or a proof.
[The wire format](wire-format.md#what-proves-the-sender) defines the content of both.
The page [wire-security.md](wire-security.md) has the steps to make and check them.
The ids of these messages are readable when they are sent, since the signature covers them.
Sign the same header and claims with the same key, in this order and without spaces.
The result is the same text: Ed25519 is deterministic.
`dig` is the digest of the body as it is sent, which has no spaces: `{"title":"Emma"}`.

**The keys are examples, and they are public.**
`d` is the SHA-256 of the text `example key of reader`, and so on for each owner, in base64url.
`bus keys new` creates real keys.
`k` of the encryption key is the SHA-256 of `example encryption key`.
The encrypted event has the body `{"title":"Emma"}`.
Its content key is the SHA-256 of `example content key`.
Its `iv` has the first 12 bytes of the SHA-256 of `example nonce`.
Real messages have a random content key and `iv`.
[The steps](wire-security.md#encrypt) give the same text with these values."""
OPERATOR = "ida"
OWNERS = ("reader", "library", OPERATOR)
SCAN_QUEUE = "library.jobs.scan.v1"
LIFE = 7 * 24 * 3600
"""Seconds until events and jobs expire."""


def private_key(service: str) -> Jwk:
    """Return the private key of a service, which is the same in each run and only an example."""
    seed = sha256(f"example key of {service}".encode()).digest()
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    parts = {"x": base64(public).decode(), "d": base64(seed).decode()}
    return {"kty": "OKP", "crv": "Ed25519", **parts, "kid": f"EXAMPLE-{service}", "alg": "EdDSA"}


def public_key(service: str) -> Jwk:
    """Return the public key of a service, in the form of the key set."""
    secret = private_key(service)
    return {
        **{name: value for name, value in secret.items() if name != "d"},
        "use": "sig",
        "iss": service,
        **({"role": "operator"} if service == OPERATOR else {}),
    }


def encryption_key() -> Jwk:
    """Return the key of the encrypted example, in the form of the file of `bus keys ring`."""
    key = base64(_seed("encryption key")).decode()
    return {"kty": "oct", "kid": "EXAMPLE-ring", "use": "enc", "alg": "A256KW", "k": key}


def _seed(name: str) -> bytes:
    return sha256(f"example {name}".encode()).digest()


def encrypted(envelope: Envelope) -> Envelope:
    """Encrypt the body as a JWE, with a content key and a nonce that are the same in each run."""
    identity = [envelope.id, envelope.type, envelope.source, envelope.correlation_id, None]
    context = sha256(json.dumps(identity, separators=(",", ":")).encode()).digest()
    header = {"alg": "A256KW", "enc": "A256GCM", "kid": encryption_key()["kid"]}
    protected = base64(json.dumps(header, separators=(",", ":")).encode())
    content_key, nonce, aad = _seed("content key"), _seed("nonce")[:12], base64(context)
    sealed = AESGCM(content_key).encrypt(nonce, envelope.body, protected + b"." + aad)
    parts = {
        "protected": protected,
        "encrypted_key": base64(aes_key_wrap(_seed("encryption key"), content_key)),
        "iv": base64(nonce),
        "ciphertext": base64(sealed[:-16]),
        "tag": base64(sealed[-16:]),
        "aad": aad,
    }
    body = json.dumps(
        {name: part.decode() for name, part in parts.items()}, separators=(",", ":")
    ).encode()
    return envelope.replace(body=body, headers={**envelope.headers, ENCRYPTION: JWE})


def pair(service: str) -> KeyPair:
    """Return the key pair that signs for `service`."""
    (private,) = read_private(json.dumps(private_key(service)))
    return KeyPair(key=read_jwk(public_key(service)), private=private)


def key_blocks() -> Iterator[tuple[str, Any]]:
    """Yield the title and the JSON value of each block of keys."""
    yield "The public keys", {"keys": [public_key(each) for each in OWNERS]}
    yield "The private key of `reader`, an example", private_key("reader")
    yield "The encryption key, an example", {"keys": [encryption_key()]}


def id_of(number: int) -> str:
    """Return a readable message id."""
    return f"{number:08d}-2222-4222-8222-222222222222"


def messages(
    find: Any, place: Any, scan: Any, pages: Any, returned: Any, now: float
) -> Iterator[tuple[str, Envelope, Address]]:
    """Yield the title, the message and the address of each example."""
    expires, back = int((now + LIFE) * 1000), reply_queue("reader", "host-4711-0a1b2c3d4e5f")

    def message(
        number: int, role: Any, type_: str, source: str, body: Any, **others: Any
    ) -> Envelope:
        known = {
            "id": id_of(number),
            "correlation_id": id_of(number),
            "timestamp": int(now),
            "body": encode(body),
        }
        return Envelope(role=role, type=type_, source=source, **{**known, **others})

    def token(issuer: str, audience: str, scope: str, number: int) -> str:
        made = service_token(
            pair(issuer),
            issuer=issuer,
            audience=audience,
            scope=scope,
            now=now,
            jti=lambda: f"{number:032x}",
        )
        return f"{BEARER}{made}"

    def proven(envelope: Envelope, audience: str | None = None) -> Envelope:
        return envelope.replace(
            proof=message_proof(pair(envelope.source), envelope, now=now, audience=audience)
        )

    def answer(to: Envelope, number: int, body: Any, model: Any) -> Envelope:
        return reply(to, body, source=service_of(to.type), model=model).replace(
            id=id_of(number), timestamp=int(now)
        )

    asked = message(
        1,
        "request",
        "library.find.v1",
        "reader",
        find,
        reply_to=back,
        deadline=int((now + 5) * 1000),
        expiration=5000,
    )
    yield (
        "Signed request",
        asked.replace(authorization=token("reader", "library", "library.find library.scan", 1)),
        address_of("request", asked.type),
    )
    yield (
        "Signed reply",
        answer(asked, 2, place, type(place)).replace(
            authorization=token("library", "reader", REPLY_SCOPE, 2)
        ),
        reply_address(back),
    )
    told = message(3, "event", "library.returned.v1", "library", returned, expires=expires)
    yield "Signed event", proven(told), address_of("event", told.type)
    job = message(4, "job", "library.scan.v1", "reader", scan, expires=expires, reply_to=back)
    yield "Signed job", proven(job), address_of("job", job.type)
    yield (
        "Signed result of a job",
        proven(answer(job, 5, pages, type(pages)), "reader"),
        update_address(back, mandatory=True),
    )

    def failed(to: Envelope, number: int, error: BusError) -> Envelope:
        return error_reply(to, error, source=service_of(to.type)).replace(
            id=id_of(number), timestamp=int(now)
        )

    def refusal(to: Envelope, answered: Envelope) -> Envelope:
        return answered.replace(
            proof=message_proof(
                pair(answered.source), answered, now=now, audience=to.source, refused=to
            )
        )

    request, sent = (
        asked.replace(authorization=token("reader", "library", "library.find library.scan", 1)),
        proven(job),
    )
    yield (
        "Signed error",
        failed(request, 6, NotFound("no such book")).replace(
            authorization=token("library", "reader", REPLY_SCOPE, 2)
        ),
        reply_address(back),
    )
    denied = PermissionDenied("reader has no right to library.find")
    yield "Refusal", refusal(request, failed(request, 7, denied)), reply_address(back)
    late = Expired("library.scan.v1: the message expired before it was handled. Send it again.")
    yield (
        "Signed failure of a job",
        refusal(sent, failed(sent, 8, late)),
        update_address(back, mandatory=True),
    )
    yield (
        "Parked copy of a job",
        sent.replace(headers={PARKED: int(now * 1000)}),
        retry_address("library", "30s", SCAN_QUEUE),
    )
    extended = sent.replace(
        expires=expires + 7200_000,
        headers={"replays": 1, "replayed-at": expires, "replayed-by": OPERATOR},
    )
    yield (
        "Replay with an expiry override",
        extended.replace(
            expiry_override=expiry_override(
                pair(OPERATOR),
                extended,
                queue=SCAN_QUEUE,
                actor=OPERATOR,
                reason="the disk was full",
                expires=expires + 7200_000,
                count=1,
                now=now + LIFE,
            )
        ),
        replay_address(SCAN_QUEUE),
    )
    secret = message(9, "event", "library.returned.v1", "library", returned, expires=expires)
    yield "Encrypted event", proven(encrypted(secret)), address_of("event", secret.type)


class IgnoredReturns:
    """Listener that ignores all notices of the transport."""

    def on_return(self, message_id: str, reason: str) -> None:
        """Ignore the notice, because every message has a queue."""

    def on_publish_failed(self, message_id: str, error: BusError) -> None:
        """Ignore the notice, because the broker accepts every message."""

    def on_connection_lost(self) -> None:
        """Ignore the notice, because no call waits for a reply."""


async def signed_messages(
    queue: AbstractQueue, **bodies: Any
) -> list[tuple[str, AbstractIncomingMessage]]:
    """Send the messages, and return the title and the received form of each message."""
    transport = RabbitMQTransport(load_settings(auth="off"), name="examples")
    found: list[tuple[str, AbstractIncomingMessage]] = []
    await transport.start(IgnoredReturns(), timeout=10)
    try:
        async with queue.iterator(no_ack=True) as incoming:
            for title, envelope, address in messages(**bodies):
                await transport.send(envelope, address, timeout=10)
                async for message in incoming:
                    if message.message_id == envelope.id:
                        found.append((title, message))
                        break
    finally:
        await transport.close()
    return found


def decoded(token: str) -> dict[str, Any]:
    """Decode a token, and return its header and claims. The signature is left out."""
    names = ("header", "claims")
    return dict(
        zip(names, (json.loads(_bytes(part)) for part in token.split(".")[:2]), strict=True)
    )


def _bytes(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
