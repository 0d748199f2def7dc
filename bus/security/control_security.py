"""The security of the control channel: who may ask, and who answers.

Reading and ordering are two rights. A service can have the right to read. An order needs the key of
an operator, and that operator's right to order.
"""

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from bus.contracts.contract import CATALOG
from bus.errors import PermissionDenied
from bus.messaging.envelope import Envelope
from bus.security.control_proofs import (
    CONTROL_PROOF,
    ProvenAsker,
    control_proof,
    verify_control_proof,
    verify_question,
)
from bus.security.current_grants import CurrentGrants
from bus.security.grants import CHAOS, ORDER, READ, AccessPolicy
from bus.security.jws import claimed_key_id
from bus.security.keyring import Keyring

__all__ = ["Access", "ControlGuard", "ControlSecurity", "Subject"]

Access = Literal["ping", "read", "order", "chaos"]
"""Kind of access to an instance. `ping` is the right to know whether an instance is alive."""


SUFFICIENT: Mapping[Access, tuple[str, ...]] = {
    "ping": (READ, ORDER, CHAOS),
    "read": (READ,),
    "order": (ORDER,),
    "chaos": (CHAOS,),
}
"""Operations of which an operator must have one. An order reaches instances that are alive."""
ORDERS = frozenset({"order", "chaos"})


class ControlGuard(Protocol):
    """Signs the messages of one process on the control channel, and checks those of others."""

    def sign_question(self, question: Envelope, target: str) -> Envelope:
        """Return the signed question for the routing key `target`."""
        ...

    def sign_answer(self, answer: Envelope, address: str) -> Envelope:
        """Return the signed answer for the routing key `address`."""
        ...

    def sign_announcement(self, announcement: Envelope, key: str) -> Envelope:
        """Return the signed announcement for the routing key `key`."""
        ...

    def admit(self, question: Envelope, targets: frozenset[str], access: Access) -> ProvenAsker:
        """Check the proof of a question and the right of its asker, and return the asker.

        Raises:
            Unauthenticated: The proof is missing or invalid.
            PermissionDenied: The asker has no right to ask the question.
        """
        ...

    def claimed_key(self, question: Envelope) -> Hashable | None:
        """Return the known key that a question names for its asker, or None. Nothing is proven."""
        ...

    def check_answer(self, answer: Envelope, address: str) -> None:
        """Raise `Unauthenticated` if the answer was not sent by the service that it names."""
        ...

    def check_announcement(self, announcement: Envelope, key: str) -> None:
        """Raise `Unauthenticated` if the announcement was not sent by its service."""
        ...

    def may_ask(self, access: Access, service: str | None) -> PermissionDenied | None:
        """Return the error of a question that this process may not ask, or None.

        Args:
            access: The kind of access.
            service: The service that is asked. None for all services.
        """
        ...

    async def refresh_keys(self) -> None:
        """Read the public keys again, but not too often."""
        ...

    def refresh_keys_soon(self) -> None:
        """Start to read the public keys again, and do not wait."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The process that signs: a service, or the command of an operator."""

    name: str
    role: Literal["service", "operator"] = "service"
    grants_file: Path | None = None
    """Path of the grants file, for error messages."""
    knows_contracts: bool = True
    """False if the process may have imported no contract of the services that it asks.

    The permission of a call is a part of its contract.
    """


class ControlSecurity:
    """The `ControlGuard` of a process with a key."""

    def __init__(
        self,
        subject: Subject,
        ring: Keyring,
        grants: CurrentGrants | None,
        *,
        clock: Callable[[], float] = time.time,
        leeway: float = 30,
    ) -> None:
        """Build the guard.

        Args:
            subject: The process that signs.
            ring: The private keys of the process, and the public keys of all services.
            grants: The grants in use. None: this process does not know them, and only asks.
            clock: Returns seconds since the epoch.
            leeway: Seconds by which the clocks of two machines may differ.
        """
        self._subject, self._ring, self._grants = subject, ring, grants
        self._clock, self._leeway = clock, leeway
        self._reading: asyncio.Task[None] | None = None

    def sign_question(self, question: Envelope, target: str) -> Envelope:
        """Return the signed question."""
        return self._sign(question, target=target)

    def sign_answer(self, answer: Envelope, address: str) -> Envelope:
        """Return the signed answer."""
        return self._sign(answer, audience=address)

    def sign_announcement(self, announcement: Envelope, key: str) -> Envelope:
        """Return the signed announcement."""
        return self._sign(announcement, target=key)

    def _sign(
        self, envelope: Envelope, *, target: str | None = None, audience: str | None = None
    ) -> Envelope:
        pair = self._ring.signing_key()
        proof = control_proof(pair, envelope, now=self._clock(), target=target, audience=audience)
        return envelope.replace(proof=proof)

    def admit(self, question: Envelope, targets: frozenset[str], access: Access) -> ProvenAsker:
        """Check the proof of a question and the right of its asker."""
        asker = verify_question(
            question, self._ring, targets=targets, now=self._clock(), leeway=self._leeway
        )
        if not self._may(asker, access, self._subject.name):
            raise PermissionDenied(f"{_title(asker)} {_lacks(access)}")
        return asker

    def claimed_key(self, question: Envelope) -> Hashable | None:
        """Return the id and the owner of the key. The shared secret of all services has none."""
        kid = claimed_key_id(question.proof or "", CONTROL_PROOF)
        owners = {key.owner for key in self._ring.get(kid)} if kid else set()
        return (kid, question.source) if question.source in owners else None

    def _may(self, asker: ProvenAsker, access: Access, service: str | None) -> bool:
        grants = self._grants
        if grants is None or asker.is_shared:
            return True
        return _is_granted(grants.policy, asker, access, service) or (
            # The right can be new.
            grants.refresh() and _is_granted(grants.policy, asker, access, service)
        )

    def check_answer(self, answer: Envelope, address: str) -> None:
        """Check that the named service has sent the answer to this process."""
        verify_control_proof(
            answer, self._ring, now=self._clock(), leeway=self._leeway, audience=address
        )

    def check_announcement(self, announcement: Envelope, key: str) -> None:
        """Check that the named service has sent the announcement."""
        verify_control_proof(
            announcement, self._ring, now=self._clock(), leeway=self._leeway, target=key
        )

    def may_ask(self, access: Access, service: str | None) -> PermissionDenied | None:
        """Return the error of a question that this process may not ask."""
        subject = self._subject
        shared = self._ring.signing_key().key.owner is None
        asker = ProvenAsker(subject.name, subject.role, is_shared=shared)
        if self._may(asker, access, service) or self._is_unknown(access, service):
            return None
        table = "operators" if subject.role == "operator" else "services"
        line = f"[{table}.{subject.name}] {_grant_for(subject.role, access)}"
        if subject.role == "service" and access in ORDERS:
            return PermissionDenied(f"{_title(asker)} {_lacks(access)}. Use an operator's key.")
        return PermissionDenied(
            f"{_title(asker)} {_lacks(access)}. Grant it in {subject.grants_file}: {line}"
        )

    def _is_unknown(self, access: Access, service: str | None) -> bool:
        """Return True if only the asked service knows whether this process may call it."""
        return (
            access == "ping"
            and service is not None
            and not self._subject.knows_contracts
            and self._subject.role == "service"
            and self._grants is not None
            and bool(self._grants.policy.scope(self._subject.name))
            and all(contract.service != service for contract in CATALOG)
        )

    async def refresh_keys(self) -> None:
        """Read the public keys again."""
        await self._ring.refresh()

    def refresh_keys_soon(self) -> None:
        """Start to read the public keys again."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._ring.refresh())


def _is_granted(
    policy: AccessPolicy, asker: ProvenAsker, access: Access, service: str | None
) -> bool:
    if asker.role == "operator":
        return any(policy.may_operate(asker.name, each) for each in SUFFICIENT[access])
    if access in ORDERS:
        return False  # only a person orders
    # An instance compares its store with those of the other instances of its service.
    if policy.may_read(asker.name) or (access == "ping" and service == asker.name):
        return True
    # A caller finds out anyway whether the service that it calls is alive.
    return access == "ping" and any(
        contract.service == service and policy.may_call(asker.name, contract.permission)
        for contract in CATALOG
        if contract.kind != "event"
    )


def _title(asker: ProvenAsker) -> str:
    return f"the {asker.role} {asker.name!r}"


def _lacks(access: Access) -> str:
    return {
        "ping": "may not ask whether services are alive",
        "read": "may not read the state of services",
        "order": "may not give orders",
        "chaos": "may not start or stop chaos experiments",
    }[access]


def _grant_for(role: str, access: Access) -> str:
    if role == "operator":
        return f'may = ["{SUFFICIENT[access][0]}"]'
    return 'control = ["read"]'
