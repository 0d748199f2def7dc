"""Attacks on the form of tokens, and on the claims of service tokens."""

import json
from hashlib import sha256
from hmac import digest as hmac_digest

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bus.messaging.envelope import Envelope
from bus.messaging.topology.names import reply_queue
from tests.security.attacks.forging import (
    Attack,
    claims,
    doubled,
    flipped,
    headed,
    later,
    payload,
    request,
    swapped,
    token,
    unsigned,
)
from tests.security.world import DAY, OPERATOR, World, token_of, with_token
from tests.security.yard import NOW, base64, bytes_of, jws, parts_of


def mac(material: str) -> Attack:
    """Return an attack with HS256 and a public key, which every service knows, as the secret."""

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
        return with_token(
            envelope, f"{signed}.{base64(hmac_digest(secrets[material], signed.encode(), sha256))}"
        )

    return attack


def a_token_as_proof(world: World) -> Envelope:
    return world.job().replace(proof=token_of(world.request()))


def a_proof_as_token(world: World) -> Envelope:
    return with_token(world.request(), token_of(world.job()))


def a_replys_token(world: World) -> Envelope:
    """Return a request with a token that is valid on replies only."""
    return world.request().replace(
        authorization=world.signer("office").authorization("ledger", for_replies=True)
    )


def an_updates_proof(world: World) -> Envelope:
    """Return a job with a proof that the office made for a reply."""
    job = world.job(proof=None)
    return world.signer("office").sign_reply(job.replace(proof=None), "ledger")


def by_a_stranger(world: World) -> Envelope:
    """Return a request that is signed with an unpublished key, under a published key id."""
    stranger = type(world.yard)().key("office")
    header, claims, _ = parts_of(token_of(world.request()))
    return with_token(world.request(), jws(header, claims, stranger))


def embedded(world: World) -> Envelope:
    """Return a request with the forger's own key in the header of the token."""
    yard = type(world.yard)()
    stranger = yard.key("office")
    header, claims, _ = parts_of(token_of(world.request()))
    return with_token(
        world.request(), jws({**header, "jwk": yard.public["office-1"]}, claims, stranger)
    )


def es256_zero(world: World) -> Envelope:
    """Return a request with the ECDSA signature r = s = 0 (CVE-2022-21449)."""
    world.yard.key("office", "office-ec", algorithm="ES256")
    header, claims, _ = parts_of(token_of(world.request()))
    header = {**header, "alg": "ES256", "kid": "office-ec"}
    signed = f"{base64(json.dumps(header))}.{base64(json.dumps(claims))}"
    return with_token(world.request(), f"{signed}.{base64(bytes(64))}")


def as_json_form(text: str) -> str:
    protected, claims, signature = text.split(".")
    return json.dumps(
        {"payload": claims, "signatures": [{"protected": protected, "signature": signature}]}
    )


def non_canonical(text: str) -> str:
    """Return the token with another last character.

    The last character has unused bits. A decoder that ignores them accepts several texts for one
    signature.
    """
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]


TOKENS: dict[str, Attack] = {
    # --- Algorithms
    "alg none": request(alg="none"),
    "alg None": request(alg="None"),
    "alg nOnE": request(alg="nOnE"),
    "alg none, and no signature": token(
        lambda text: (
            f"{base64(json.dumps({**parts_of(text)[0], 'alg': 'none'}))}.{text.split('.')[1]}."
        )
    ),
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
    # --- Key ids
    "an unknown kid": request(kid="office-2"),
    "a kid that is a path": request(kid="../../../dev/null"),
    "a kid that is SQL": request(kid="x' UNION SELECT 'key'--"),
    "a kid of 10 kB": request(kid="k" * 10_000),
    "a kid of 1 MB": request(kid="k" * 1_000_000),
    "a kid that is null": headed('{"alg": "EdDSA", "kid": null, "typ": "svc+jwt"}'),
    "a kid that is a number": request(kid=1),
    "no kid": request(kid=None),
    # --- Headers
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
    "a header with alg twice": headed(
        '{"alg": "none", "alg": "EdDSA", "kid": "office-1", "typ": "svc+jwt"}'
    ),
    "a header with kid twice": headed(
        '{"alg": "EdDSA", "kid": "mail-1", "kid": "office-1", "typ": "svc+jwt"}'
    ),
    "a header that is a list": headed('["EdDSA"]'),
    "a header that is no JSON": headed("EdDSA"),
    "a header that is nested deeply": headed("[" * 700),
    # --- Form
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
    "the other alphabet of base64": token(
        lambda text: text.replace("-", "+").replace("_", "/") + "+"
    ),
    "letters that are no ASCII": token(lambda text: "é" + text),
    "a payload that is no UTF-8": token(
        lambda text: f"{text.split('.')[0]}.{base64(bytes([0xFF, 0xFE]))}.{text.split('.')[2]}"
    ),
    "a token of 1 MB": token(lambda text: text + "A" * 1_000_000),
    "another scheme": lambda world: world.request().replace(
        authorization=f"Basic {token_of(world.request())}"
    ),
    "no scheme": lambda world: world.request().replace(authorization=token_of(world.request())),
    "an empty token": lambda world: world.request().replace(authorization="Bearer "),
    "no token": unsigned("request"),
    "a job without a proof": unsigned("job"),
    "an event without a proof": unsigned("event"),
    "a flipped bit in a token's header": flipped(0, "request"),
    "a flipped bit in a token's claims": flipped(1, "request"),
    "a flipped bit in a token's signature": flipped(2, "request"),
    "a flipped bit in a proof's header": flipped(0, "job"),
    "a flipped bit in a proof's claims": flipped(1, "job"),
    "a flipped bit in a proof's signature": flipped(2, "job"),
    # --- A token's claims
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
    "another's key under its own id": lambda world: world.forged(
        world.request(), header={"kid": "mail-1"}, by="mail"
    ),
    "an issuer who is not the sender": swapped("request", source="mail"),
    "an issuer in the future": claims("request", iat=NOW + 3600, exp=NOW + 3700),
    "a token that is not valid yet": claims("request", nbf=NOW + 3600),
    "a token that has expired": later(331, lambda world: world.request()),
    "a token without an end": claims("request", exp=None),
    "a token for a year": claims("request", exp=NOW + 365 * DAY),
    "an end that is a text": claims("request", exp="9999999999"),
    "an end that is NaN": payload(
        '{"iss": "office", "aud": "ledger", "scope": "ledger.add", "jti": "1", '
        '"iat": 1700000000, "nbf": 1, "exp": NaN}',
        "request",
    ),
    "an end that is infinite": claims("request", exp=float("inf")),
    "an end that is true": claims("request", exp=True),
    "a claim that is there twice": doubled("request", "scope"),
    "a scope that the issuer was never granted": lambda world: world.forged(
        world.request().replace(source="mail", reply_to=reply_queue("mail", "1")),
        header={"kid": "mail-1"},
        claims={"iss": "mail", "scope": "ledger.add ledger.close"},
        by="mail",
    ),
    "a token of an operator": lambda world: world.forged(
        world.request().replace(source=OPERATOR, reply_to=reply_queue(OPERATOR, "1")),
        header={"kid": "ops-1"},
        claims={"iss": OPERATOR},
        by=OPERATOR,
    ),
    "a reply to somebody else": swapped("request", reply_to=reply_queue("mail", "1")),
    "a key that nobody knows, under an id that all know": by_a_stranger,
}
