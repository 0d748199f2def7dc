"""Grants: what each service may call, publish and consume, as `grants.toml` says.

    clients = ["gateway"]                    # services that own no contract

    [services.gateway]
    call = ["read:transcriptions"]           # permissions of requests and jobs

    [services.transcription]
    publish = ["transcription.completed"]    # permissions of its own events

    [operators.ida]
    may = ["dead-letters.reveal"]            # what people do, by the name of their key

A service that the file does not name may do nothing. Names are written out: a pattern would grant what does not exist yet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from bus.contracts.contract import CATALOG

__all__ = ["REVEAL", "VERBS", "AccessPolicy", "AllowAll", "Grants", "ServiceGrants", "Verb"]

Verb = Literal["call", "publish", "consume"]
REVEAL: Final = "dead-letters.reveal"
"""To see payloads of dead letters."""
OPERATIONS: Final = (REVEAL,)
NOTHING: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceGrants:
    """The permissions of one service."""

    call: frozenset[str] = NOTHING
    """Of requests and jobs."""
    publish: frozenset[str] = NOTHING
    """Of its own events."""
    consume: frozenset[str] = NOTHING
    """Of anybody's events."""


VERBS: Final[tuple[Verb, ...]] = ("call", "publish", "consume")
NO_RIGHTS = ServiceGrants()


@dataclass(frozen=True, slots=True)
class Grants:
    """The rights of each service, by its name. Who is not in it may do nothing."""

    services: Mapping[str, ServiceGrants]
    operators: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """What people may do, by the name of their key."""

    def may_call(self, service: str, permission: str) -> bool:
        """Whether `service` may send requests and jobs of this permission."""
        return permission in self._of(service).call

    def may_publish(self, service: str, permission: str) -> bool:
        """Whether `service` may publish events of this permission. Only an event's owner can have been granted it."""
        return permission in self._of(service).publish

    def may_consume(self, service: str, permission: str) -> bool:
        """Whether `service` may subscribe to events of this permission."""
        return permission in self._of(service).consume

    def scope(self, service: str) -> frozenset[str]:
        """All that `service` may call: what its tokens carry."""
        return self._of(service).call

    def knows(self, service: str) -> bool:
        """Whether the file names it."""
        return service in self.services

    def may_operate(self, operator: str, operation: str) -> bool:
        """Whether an operator may do that, such as `REVEAL`."""
        return operation in self.operators.get(operator, NOTHING)

    def _of(self, service: str) -> ServiceGrants:
        return self.services.get(service, NO_RIGHTS)


class AccessPolicy(Protocol):
    """Who may do what, by permission."""

    def may_call(self, service: str, permission: str) -> bool:
        """Requests and jobs."""
        ...

    def may_publish(self, service: str, permission: str) -> bool:
        """Events."""
        ...

    def may_consume(self, service: str, permission: str) -> bool:
        """Events of others."""
        ...

    def scope(self, service: str) -> frozenset[str]:
        """All that it may call."""
        ...

    def knows(self, service: str) -> bool:
        """Whether it has rights at all; only then has the broker a user for it, and lets it be answered."""
        ...


class AllowAll:
    """With `dev` and without a file everyone may do everything."""

    def may_call(self, service: str, permission: str) -> bool:  # noqa: ARG002 - the shape of `AccessPolicy`
        """Yes."""
        return True

    may_publish = may_consume = may_call

    def knows(self, service: str) -> bool:  # noqa: ARG002 - as above
        """Yes."""
        return True

    def scope(self, service: str) -> frozenset[str]:  # noqa: ARG002 - as above
        """Everything that is known here."""
        return frozenset(contract.permission for contract in CATALOG if contract.kind != "event")
