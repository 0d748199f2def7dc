"""Sign, check, encrypt and decrypt messages: the steps of docs/reference/wire-security.md."""

import hashlib
import json
import os
import time
import tomllib
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap
from pika import BasicProperties

LEEWAY, REFRESH, NOT_BEFORE = 30.0, 60, 10  # seconds
LONGEST_TOKEN = 8192  # characters
LONGEST_PROOF, LONGEST_TOKEN_LIFE = 31 * 24 * 3600, 900  # seconds


class Refused(Exception):
    """Message that is not admitted. It may be admitted later if keys or grants change."""

    def __init__(self, code: str, reason: str, *, may_change: bool = False) -> None:
        super().__init__(reason)
        self.code, self.may_change = code, may_change


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def plain(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def digest(data: bytes | str) -> str:
    return base64url(hashlib.sha256(data.encode() if isinstance(data, str) else data).digest())


def require(holds: object, reason: str, code: str = "unauthenticated") -> None:
    if not holds:
        raise Refused(code, reason)


class Identity:
    """Keys and grants of one service, from the variables that a service of the bus uses."""

    def __init__(self, name: str) -> None:
        self.name, self.read_at = name, 0.0
        self.private = json.loads((Path(os.environ["BUS_KEY"]) / f"{name}.key").read_text())["keys"]
        self.ring = json.loads(Path(os.environ["BUS_ENCRYPTION_KEYS"]).read_text())["keys"]
        self.refresh()

    def refresh(self) -> None:
        """Read the public keys and the grants again, but not within 10 s of the last time."""
        if time.time() - self.read_at >= NOT_BEFORE:
            keys = json.loads(Path(os.environ["BUS_JWKS"]).read_text())["keys"]
            self.public = {(key["iss"], key["kid"]): key for key in keys if "d" not in key}
            self.grants = tomllib.loads(Path(os.environ["BUS_GRANTS"]).read_text())["services"]
            self.read_at = time.time()

    # Section "Sign"

    def _signed(self, typ: str, claims: dict[str, Any]) -> str:
        published = [self.public.get((self.name, key["kid"]), {}) for key in self.private]
        valid = [key for key in published if key and valid_at(key, time.time())]
        kid = max(valid, key=lambda key: float(key.get("not_before", 0)))["kid"]
        private = jwt.PyJWK(next(key for key in self.private if key["kid"] == kid))
        headers = {"kid": kid, "typ": typ}
        return jwt.encode(claims, private, private.algorithm_name, headers)

    def token(self, audience: str, scope: str) -> str:
        """Return the header `authorization` of a request."""
        now = int(time.time())
        times = {"iat": now, "nbf": now, "exp": now + 300}
        claims = {"iss": self.name, "aud": audience, "scope": scope, **times}
        return "Bearer " + self._signed("svc+jwt", {**claims, "jti": uuid.uuid4().hex})

    def proof(self, sent: BasicProperties, body: bytes, **claims_of_answer: str) -> str:
        """Prove an event or job; with `aud`, and `ref` for a failure, an answer to a job."""
        now, headers = time.time(), sent.headers
        expires = headers["expires"] / 1000 if "expires" in headers else int(now) + 300
        claims = {"jti": sent.message_id, "type": sent.type, "iss": self.name, "iat": now}
        claims |= {"exp": expires, "cid": headers.get("correlation-id", ""), "dig": digest(body)}
        optional = {"rto": sent.reply_to, "enc": headers.get("encryption")}
        optional |= {"irt": sent.correlation_id, **claims_of_answer}
        present = {name: value for name, value in optional.items() if value is not None}
        return self._signed("msg+jwt", {**claims, **present})

    # Section "Check a token". The steps about unused bits and duplicate names are skipped.

    def _checked(self, token: str, typ: str) -> dict[str, Any]:
        if time.time() - self.read_at >= REFRESH:
            self.refresh()
        unchecked: Any = {f"verify_{claim}": False for claim in ("aud", "exp", "iat", "nbf")}
        try:
            require(len(token) <= LONGEST_TOKEN, "the token is too long")
            header = jwt.get_unverified_header(token)
            require(set(header) == {"alg", "kid", "typ"}, "the token has another header")
            require(header["typ"] == typ, f"the token is no {typ}")
            claimed = jwt.decode(token, options=unchecked | {"verify_signature": False})
            owner = (str(claimed.get("iss")), header["kid"])
            if owner not in self.public:
                self.refresh()
            if (key := self.public.get(owner)) is None:
                raise Refused("unauthenticated", "the key is unknown", may_change=True)
            require(key["alg"] in ("EdDSA", "ES256"), "the key has another algorithm")
            claims: dict[str, Any] = jwt.decode(
                token, jwt.PyJWK(key), [key["alg"]], options=unchecked
            )
        except jwt.PyJWTError as error:
            raise Refused("unauthenticated", "the token is malformed or not genuine") from error
        role = key.get("role", "service")
        require(claims.get("iss") == key["iss"] and role == "service", "the key has another owner")
        require(moment(claims, "iat") <= time.time() + LEEWAY, "iat is in the future")
        require(valid_at(key, claims["iat"]), "the key was not valid at iat")
        return claims

    def _proven(self, got: BasicProperties, body: bytes) -> dict[str, Any]:
        """Do the steps 1 to 4 and 6 of section "An event or a job"."""
        headers = got.headers or {}
        claims = self._checked(str(headers.get("proof", "")), "msg+jwt")
        expected = {"jti": got.message_id, "type": got.type, "iss": got.app_id}
        expected |= {"cid": headers.get("correlation-id", ""), "dig": digest(body)}
        expected |= {"rto": got.reply_to, "enc": headers.get("encryption")}
        for name, value in expected.items():
            require(claims.get(name) == value, f"claim {name} does not match the message")
        require(
            moment(claims, "exp") - claims["iat"] <= LONGEST_PROOF,
            "the proof is valid for too long",
        )
        return claims

    def check_message(self, got: BasicProperties, body: bytes, right: str, permission: str) -> None:
        """Check an event (right `publish`) or a job (right `call`) without a `counter-proof`."""
        claims, sender = self._proven(got, body), got.app_id
        require("irt" not in claims and "aud" not in claims, "the proof is one of an answer")
        require(round(claims["exp"] * 1000) == got.headers.get("expires"), "expires was changed")
        require(claims["exp"] > time.time(), "the message has expired", "deadline_exceeded")
        owner = got.type.split(".")[0]
        require(right == "call" or sender == owner, "an event of another service")
        if permission not in self.grants.get(sender, {}).get(right, []):
            self.refresh()
        if permission not in self.grants.get(sender, {}).get(right, []):
            raise Refused("permission_denied", "the sender has no grant", may_change=True)
        require(not got.reply_to or own_queue(got.reply_to, sender), "a foreign reply_to")

    def check_answer(self, got: BasicProperties, body: bytes, service: str, sent: str) -> None:
        """Check an answer to the message with this `authorization` or `proof`."""
        headers = got.headers or {}
        require(got.app_id == service, "another service answers")
        if "proof" in headers or not sent.startswith("Bearer "):
            claims = self._proven(got, body)
            require(claims.get("irt") == got.correlation_id, "it answers another message")
            require(claims.get("ref") in (None, digest(sent)), "it answers another sender")
        else:
            bearer = str(headers.get("authorization", ""))
            require(bearer.startswith("Bearer "), "the answer has no token")
            claims = self._checked(bearer.removeprefix("Bearer "), "svc+jwt")
            require(claims.get("jti") and claims["iss"] == got.app_id, "a token of another service")
            require(moment(claims, "nbf") <= time.time() + LEEWAY, "nbf is in the future")
            require(
                moment(claims, "exp") - claims["iat"] <= LONGEST_TOKEN_LIFE,
                "the token is valid for too long",
            )
            require(claims.get("scope") == "bus/reply", "the token is not one of a reply")
        require(claims.get("aud") == self.name, "it is for another service")
        require(moment(claims, "exp") + LEEWAY > time.time(), "the answer has expired")

    # Section "Encrypt"

    def encrypt(self, sent: BasicProperties, body: bytes) -> bytes:
        """Encrypt a body before its message is signed."""
        key, content_key, iv = self.ring[0], AESGCM.generate_key(256), os.urandom(12)
        header = {"alg": "A256KW", "enc": "A256GCM", "kid": key["kid"]}
        protected, aad = base64url(compact(header)), digest(context(sent))
        sealed = AESGCM(content_key).encrypt(iv, body, f"{protected}.{aad}".encode())
        parts = {"encrypted_key": aes_key_wrap(plain(key["k"]), content_key), "iv": iv}
        parts |= {"ciphertext": sealed[:-16], "tag": sealed[-16:]}
        encoded = {name: base64url(part) for name, part in parts.items()}
        return compact({"protected": protected, **encoded, "aad": aad})

    def decrypt(self, got: BasicProperties, body: bytes) -> bytes:
        """Decrypt a body after its proof or token was checked."""
        try:
            jwe = json.loads(body)
            header = json.loads(plain(jwe["protected"]))
            right = {"alg": "A256KW", "enc": "A256GCM", "kid": header["kid"]}
            members = {"protected", "encrypted_key", "iv", "ciphertext", "tag", "aad", "header"}
            require(header == right and set(jwe) <= members, "unknown JWE", "invalid_argument")
            known = jwe.get("header", {}) in ({}, {"kid": header["kid"]})  # older versions wrote it
            require(known, "unknown JWE", "invalid_argument")
            keys = [key for key in self.ring if key["kid"] == header["kid"]]
            require(keys, "the encryption key is not here yet", "unavailable")
            content_key = aes_key_unwrap(plain(keys[0]["k"]), plain(jwe["encrypted_key"]))
            sealed = plain(jwe["ciphertext"]) + plain(jwe["tag"])
            aad = f"{jwe['protected']}.{digest(context(got))}".encode()
            return AESGCM(content_key).decrypt(plain(jwe["iv"]), sealed, aad)
        except Refused:
            raise
        except Exception as error:  # each malformed part has its own class of error
            raise Refused("invalid_argument", "the payload cannot be decrypted") from error


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def context(message: BasicProperties) -> bytes:
    cid = message.headers.get("correlation-id", "")
    parts = [message.message_id, message.type, message.app_id, cid, message.correlation_id]
    return compact(parts)


def moment(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    require(type(value) in (int, float), f"claim {name} is not a time")
    require(0 < float(value or 0) < 2**40, f"claim {name} is not a time")
    return float(value or 0)


def valid_at(key: dict[str, Any], when: float) -> bool:
    ends = [key[name] for name in ("retired_at", "compromised_since") if name in key]
    return bool(key.get("not_before", 0) <= when < min(ends, default=2**40))


def own_queue(name: str, service: str) -> bool:
    instance = name.removeprefix(f"{service}.replies.")
    return (
        instance != name
        and instance.isascii()
        and instance.replace("-", "").replace(".", "").replace("_", "").isalnum()
    )
