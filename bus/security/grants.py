"""Grants: the permissions of each service and operator, from `grants.toml`.

    clients = ["reader"]               # services that own no contract

    [services.reader]
    call = ["read:books"]              # permissions of requests and jobs
    consume = ["library.scanned"]      # permissions of events
    control = ["read"]                 # the right to read the state of live services
    jobs = ["read:library.scan"]       # the right to read jobs that other services submitted

    [services.library]
    publish = ["library.scanned"]      # permissions of its own events

    [operators.ida]
    may = ["control.read"]             # operations of the person with the key `ida`

A service that the file does not name has no permissions. Each permission is written in full. A
pattern would also grant permissions that are added later.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

from bus.contracts.contract import CATALOG

__all__ = [
    "CHAOS",
    "CONTROL_RIGHTS",
    "JOBS_CANCEL",
    "JOBS_READ",
    "JOBS_RETRY",
    "ORDER",
    "READ",
    "REVEAL",
    "VERBS",
    "AccessPolicy",
    "AllowAll",
    "Grants",
    "GrantsSource",
    "ServiceGrants",
    "Verb",
]

Verb = Literal["call", "publish", "consume"]
REVEAL: Final = "dead-letters.reveal"
"""Name of the operation that shows the payloads of dead letters."""
READ: Final = "control.read"
"""Name of the operation that asks live services about their state."""
ORDER: Final = "control.order"
"""Name of the operation that gives orders to live services, such as the pause of a consumer."""
CHAOS: Final = "control.chaos"
"""Name of the operation that injects faults into live services.

It is apart from `ORDER`, because an order protects a service, and an experiment harms it.
"""
JOBS_READ: Final = "jobs.read"
"""Name of the operation that shows the payloads and results of durable jobs."""
JOBS_CANCEL: Final = "jobs.cancel"
"""Name of the operation that cancels durable jobs of any service."""
JOBS_RETRY: Final = "jobs.retry"
"""Name of the operation that begins a new life of failed jobs."""
OPERATIONS: Final = (REVEAL, READ, ORDER, CHAOS, JOBS_READ, JOBS_CANCEL, JOBS_RETRY)
"""All operations that the grants can permit to an operator."""
CONTROL_RIGHTS: Final = ("read",)
"""All rights on the control channel that the grants can permit to a service."""
NOTHING: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceGrants:
    """The permissions of one service."""

    call: frozenset[str] = NOTHING
    """Permissions to send requests and jobs."""
    publish: frozenset[str] = NOTHING
    """Permissions to publish the service's own events."""
    consume: frozenset[str] = NOTHING
    """Permissions to consume events. The events can belong to any service."""
    control: frozenset[str] = NOTHING
    """Rights on the control channel: `read`."""
    jobs: frozenset[str] = NOTHING
    """Rights on the jobs of other submitters: `read:<job>` and `cancel:<job>`."""


VERBS: Final[tuple[Verb, ...]] = ("call", "publish", "consume")
NO_RIGHTS = ServiceGrants()


@dataclass(frozen=True, slots=True)
class Grants:
    """The permissions of all services. A service that is not listed has no permissions."""

    services: Mapping[str, ServiceGrants]
    """The permissions of each service, by its name."""
    operators: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The permitted operations of each operator, by the operator's name."""

    def may_call(self, service: str, permission: str) -> bool:
        """Return True if `service` may send requests and jobs with this permission."""
        return permission in self._of(service).call

    def may_publish(self, service: str, permission: str) -> bool:
        """Return True if `service` may publish events with this permission.

        Only the service that owns an event can have this permission.
        """
        return permission in self._of(service).publish

    def may_consume(self, service: str, permission: str) -> bool:
        """Return True if `service` may subscribe to events with this permission."""
        return permission in self._of(service).consume

    def scope(self, service: str) -> frozenset[str]:
        """Return all call permissions of `service`. They are the scope of its tokens."""
        return self._of(service).call

    def knows(self, service: str) -> bool:
        """Return True if the file has grants for `service`."""
        return service in self.services

    def may_operate(self, operator: str, operation: str) -> bool:
        """Return True if `operator` may perform `operation`, for example `REVEAL`."""
        return operation in self.operators.get(operator, NOTHING)

    def may_read(self, service: str) -> bool:
        """Return True if `service` may ask live services about their state."""
        return "read" in self._of(service).control

    def may_access_jobs(self, service: str, right: str, job: str) -> bool:
        """Return True if `service` may `read` or `cancel` the jobs that others submitted.

        Args:
            service: Service that asks.
            right: `read` or `cancel`.
            job: Name of the job's contract, without the version.
        """
        return f"{right}:{job}" in self._of(service).jobs

    def _of(self, service: str) -> ServiceGrants:
        return self.services.get(service, NO_RIGHTS)


class AccessPolicy(Protocol):
    """The permissions of every service and operator."""

    def may_call(self, service: str, permission: str) -> bool:
        """Return True if `service` may send requests and jobs with this permission."""
        ...

    def may_publish(self, service: str, permission: str) -> bool:
        """Return True if `service` may publish events with this permission."""
        ...

    def may_consume(self, service: str, permission: str) -> bool:
        """Return True if `service` may subscribe to events with this permission."""
        ...

    def scope(self, service: str) -> frozenset[str]:
        """Return all call permissions of `service`."""
        ...

    def knows(self, service: str) -> bool:
        """Return True if `service` has grants.

        Only these services have a user at the broker, and can receive replies.
        """
        ...

    def may_read(self, service: str) -> bool:
        """Return True if `service` may ask live services about their state."""
        ...

    def may_access_jobs(self, service: str, right: str, job: str) -> bool:
        """Return True if `service` may `read` or `cancel` the jobs that others submitted."""
        ...

    def may_operate(self, operator: str, operation: str) -> bool:
        """Return True if `operator` may perform `operation`."""
        ...


@dataclass(frozen=True, slots=True)
class GrantsSource:
    """The source of the grants: their text, the function that parses it, and their path."""

    read: Callable[[], str]
    """Function that returns the text of the grants."""
    parse: Callable[[str], AccessPolicy]
    """Function that returns the permissions in a text. They depend on the declared contracts."""
    path: Path | None = None
    """Path of the grants file, for error messages."""


class AllowAll:
    """The policy of `BUS_AUTH=dev` without a grants file: every service has every permission."""

    def may_call(self, service: str, permission: str) -> bool:  # noqa: ARG002 - the parameters of `AccessPolicy`
        """Return True."""
        return True

    may_publish = may_consume = may_operate = may_call

    def may_read(self, service: str) -> bool:  # noqa: ARG002 - as above
        """Return True."""
        return True

    def may_access_jobs(self, service: str, right: str, job: str) -> bool:  # noqa: ARG002 - as above
        """Return True."""
        return True

    def knows(self, service: str) -> bool:  # noqa: ARG002 - as above
        """Return True."""
        return True

    def scope(self, service: str) -> frozenset[str]:  # noqa: ARG002 - as above
        """Return the permissions of all requests and jobs in the catalog."""
        return frozenset(contract.permission for contract in CATALOG if contract.kind != "event")
