"""The identity of one service: keys, grants, signer and verifier."""

import asyncio
import time
from collections.abc import Callable, Iterable

from bus.contracts.contract import Contract
from bus.errors import ConfigurationError, PermissionDenied
from bus.security.control_security import ControlSecurity, Subject
from bus.security.current_grants import CurrentGrants
from bus.security.endpoint_guard import EndpointGuard
from bus.security.grants import AccessPolicy, GrantsSource
from bus.security.keyring import Keyring
from bus.security.signer import Signer
from bus.security.verifier import Verifier

__all__ = ["ServiceIdentity"]


class ServiceIdentity:
    """The keys and grants that one service uses to sign and verify messages."""

    is_anonymous = False
    """True if the service neither signs nor verifies messages."""

    def __init__(
        self,
        service: str,
        ring: Keyring,
        grants: GrantsSource,
        *,
        leeway: float = 30,
        direct: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Build the identity of a service from its keys and grants.

        Args:
            service: The name that this process signs with.
            ring: The private keys of this service, and the public keys of all services.
            grants: The source of the grants of all services.
            leeway: Seconds by which the clocks of two machines may differ.
            direct: True if this service may send replies to RabbitMQ's direct reply-to.
            clock: Returns seconds since the epoch.
        """
        self._service = service
        self._path = grants.path
        self._ring = ring
        self._grants = CurrentGrants(grants)
        self._readers: list[asyncio.Task[None]] = []
        self.control = ControlSecurity(
            Subject(name=service, grants_file=grants.path),
            ring,
            self._grants,
            clock=clock,
            leeway=leeway,
        )
        self.signer = Signer(service, ring, self._grants, clock=clock)
        self.verifier = Verifier(
            service, ring, self._grants, clock=clock, leeway=leeway, direct=direct
        )

    @property
    def grants(self) -> AccessPolicy:
        """The permissions of every service."""
        return self._grants.policy

    async def start(self) -> None:
        """Read the grants and keys. Start the tasks that read both again at intervals.

        Raises:
            ConfigurationError: The keys or grants cannot be read, or have a fault.
        """
        self._grants.read()
        await self._ring.start()
        loop = asyncio.get_running_loop()
        self._readers = [
            loop.create_task(self._ring.run()),
            loop.create_task(self._grants.run()),
        ]

    def check_signing_key(self) -> None:
        """Check that this service can sign messages now.

        Raises:
            FailedPrecondition: No key of this service is valid now.
        """
        self._ring.signing_key()

    def guard(self, contract: Contract, *, is_open: bool = False) -> EndpointGuard:
        """Return the guard of the endpoint that serves `contract`.

        Args:
            contract: Contract of the endpoint.
            is_open: True if each verified service may send the contract, and the handler checks its
                rights.
        """
        return EndpointGuard(contract, self.verifier, is_open=is_open)

    def may_access_jobs(self, service: str, right: str, job: str) -> bool:
        """Return True if a service may read or cancel the jobs of other submitters.

        If the grants do not contain the right, they are read again, because it can be new.

        Args:
            service: Service that asks.
            right: `read` or `cancel`.
            job: Name of the job's contract, without the version.
        """
        return self._grants.policy.may_access_jobs(service, right, job) or (
            self._grants.refresh() and self._grants.policy.may_access_jobs(service, right, job)
        )

    def check_send_permission(self, contract: Contract) -> PermissionDenied | None:
        """Return None if this service may send messages of this contract. If not, return an error.

        If the grants do not contain the permission, they are read again, because it can be new.
        """
        if self._may_send(contract) or (self._grants.refresh() and self._may_send(contract)):
            return None
        verb, permission = "publish" if contract.kind == "event" else "call", contract.permission
        line = f'[services.{self._service}] {verb} = ["{permission}"]'
        return PermissionDenied(
            f"{self._service} has no right to {verb} {permission}. Grant it in {self._path}: {line}"
        )

    def call_rights(self) -> frozenset[str]:
        """Return all permissions with which this service sends requests and jobs now."""
        return self._grants.policy.scope(self._service)

    def _may_send(self, contract: Contract) -> bool:
        grants = self._grants.policy
        allowed = grants.may_publish if contract.kind == "event" else grants.may_call
        return allowed(self._service, contract.permission)

    def check_subscriptions(self, contracts: Iterable[Contract]) -> None:
        """Read the grants again. Check that this service may consume the events in `contracts`.

        Raises:
            ConfigurationError: The service may not consume one of the events.
        """
        self._grants.read()
        for contract in contracts:
            if contract.kind == "event" and not self._grants.policy.may_consume(
                self._service, contract.permission
            ):
                line = f'[services.{self._service}] consume = ["{contract.permission}"]'
                raise ConfigurationError(
                    f"{self._service} may not consume {contract.permission}. "
                    f"Grant it in {self._path}: {line}"
                )

    async def close(self) -> None:
        """Stop the tasks that read the keys and grants, and each read that has not ended yet."""
        for task in self._readers:
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await self._ring.close()
