"""Services with keys, and helpers for forged tokens."""

import asyncio
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bus.contracts.contract import Contract, Message, contract_of
from bus.messaging.envelope import Envelope
from bus.security.current_grants import CurrentGrants
from bus.security.endpoint_guard import EndpointGuard
from bus.security.grants import Grants, GrantsSource, ServiceGrants
from bus.security.keyring import Keyring
from bus.security.keys import Algorithm, PrivateKey, Role
from bus.security.private_keys import generate, read_private
from bus.security.signer import Signer
from bus.security.verifier import Verifier

NOW = 1_700_000_000.0
"""Seconds since the epoch."""


@dataclass
class Clock:
    """A clock that only a test moves."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Yard:
    """Services with keys, and the public key set that all of them read."""

    clock: Clock = field(default_factory=Clock)
    grants: Grants = field(default_factory=lambda: Grants({}))
    public: dict[str, dict[str, Any]] = field(default_factory=dict)
    private: dict[str, list[PrivateKey]] = field(default_factory=dict)
    fetches: int = 0

    def key(
        self, owner: str, kid: str | None = None, *, algorithm: Algorithm = "EdDSA", **members: Any
    ) -> PrivateKey:
        """Add a key of `owner`, with further members such as `not_before` and `role`."""
        (private,) = read_private(json.dumps(generate(algorithm)))
        kid = kid or f"{owner}-1"
        self.public[kid] = {
            **private.public,
            "kid": kid,
            "alg": algorithm,
            "use": "sig",
            "iss": owner,
            **members,
        }
        self.private.setdefault(owner, []).append(private)
        return private

    def text(self) -> bytes:
        return json.dumps({"keys": [*self.public.values()]}).encode()

    def ring(self, owner: str) -> Keyring:
        """Return a keyring of `owner`, which counts each read of the key set in `fetches`."""

        async def source() -> bytes:
            self.fetches += 1
            return self.text()

        role: Role = (
            "operator"
            if any(
                each["iss"] == owner and each.get("role") == "operator"
                for each in self.public.values()
            )
            else "service"
        )
        return Keyring(
            owner,
            source,
            lambda: self.private.get(owner, []),
            role=role,
            clock=self.clock,
            timer=self.clock,
        )

    async def started(self, owner: str) -> Keyring:
        ring = self.ring(owner)
        await ring.start()
        return ring

    def ready(self, owner: str) -> Keyring:
        """Return a started keyring, for callers that are not coroutines."""
        ring = self.ring(owner)
        asyncio.run(ring.start())
        return ring

    def signer(self, owner: str, ring: Keyring) -> Signer:
        return Signer(owner, ring, self.current(), clock=self.clock)

    def verifier(self, owner: str, ring: Keyring, *, direct: bool = False) -> Verifier:
        return Verifier(owner, ring, self.current(), clock=self.clock, direct=direct)

    def current(self) -> CurrentGrants:
        """Return the grants as one service reads them."""
        source = GrantsSource(lambda: str(self.grants), lambda _: self.grants)
        current = CurrentGrants(source, timer=self.clock)
        current.read()
        return current

    def gate(
        self, owner: str, ring: Keyring, model: type[Message], *, direct: bool = False
    ) -> EndpointGuard:
        return EndpointGuard(contract_of(model), self.verifier(owner, ring, direct=direct))

    def grant(
        self,
        service: str,
        *,
        call: tuple[Contract, ...] = (),
        publish: tuple[Contract, ...] = (),
        consume: tuple[Contract, ...] = (),
    ) -> None:
        rights = ServiceGrants(
            call=frozenset(each.permission for each in call),
            publish=frozenset(each.permission for each in publish),
            consume=frozenset(each.permission for each in consume),
        )
        self.grants = Grants({**self.grants.services, service: rights})


def base64(data: bytes | str) -> str:
    return urlsafe_b64encode(data.encode() if isinstance(data, str) else data).rstrip(b"=").decode()


def jws(
    header: Mapping[str, Any] | str, claims: Mapping[str, Any] | str, key: PrivateKey | None
) -> str:
    """Return a compact JWT of this header and these claims; text is encoded as it is."""
    parts = [
        base64(each if isinstance(each, str) else json.dumps(each)) for each in (header, claims)
    ]
    signed = ".".join(parts)
    return f"{signed}.{base64(key.sign(signed.encode())) if key else ''}"


def parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the decoded header and claims, and the encoded signature."""
    header, claims, signature = token.split(".")
    return json.loads(bytes_of(header)), json.loads(bytes_of(claims)), signature


def bytes_of(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def bearer(envelope: Envelope) -> str:
    """Return the token of a request or reply."""
    return (envelope.authorization or "").removeprefix("Bearer ")
