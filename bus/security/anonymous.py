"""Classes for a service that runs with `BUS_AUTH=off`. They sign nothing and check nothing.

The classes have the same methods as `ServiceIdentity`, `Signer`, `Verifier` and `EndpointGuard`, so
callers do not need to check whether authentication is on.
"""

from collections.abc import Collection, Iterable

from bus.contracts.contract import Contract
from bus.errors import BusError
from bus.messaging.envelope import Envelope
from bus.security.open_control import OPEN_CONTROL

__all__ = ["ANONYMOUS", "AnonymousIdentity", "NullSigner", "NullVerifier", "OpenGuard"]


class NullSigner:
    """A signer that leaves every message as it is."""

    def sign(self, envelope: Envelope) -> Envelope:
        """Return `envelope` unchanged."""
        return envelope

    def sign_reply(
        self,
        reply: Envelope,
        audience: str,  # noqa: ARG002 - the parameters of `Signer`
        *,
        refused: Envelope | None = None,  # noqa: ARG002 - as above
    ) -> Envelope:
        """Return `reply` unchanged."""
        return reply

    def authorize_reply(self, reply: Envelope, audience: str) -> Envelope:  # noqa: ARG002 - as above
        """Return `reply` unchanged."""
        return reply


class NullVerifier:
    """A verifier that accepts every reply."""

    def check_reply(
        self,
        answer: Envelope,  # noqa: ARG002 - the parameters of `Verifier`
        service: str,  # noqa: ARG002 - as above
        *,
        is_job: bool = False,  # noqa: ARG002 - as above
        proofs: Collection[str] | None = None,  # noqa: ARG002 - as above
    ) -> BusError | None:
        """Return None: every reply is accepted."""
        return None

    def verify_own(self, envelope: Envelope) -> None:
        """Do nothing: every message is accepted."""

    def record_rejection(self, envelope: Envelope, error: BusError) -> None:
        """Do nothing: no message is rejected."""

    async def refresh_keys(self) -> None:
        """Do nothing: there are no keys."""


class OpenGuard:
    """A guard that authorizes every message."""

    def authorize(self, envelope: Envelope) -> BusError | None:  # noqa: ARG002 - the parameters of `EndpointGuard`
        """Return None: every message is authorized."""
        return None

    def may_wait(self, envelope: Envelope, error: BusError) -> bool:  # noqa: ARG002 - as above
        """Return False: no message lacks a key or grant."""
        return False

    def may_reply(self, envelope: Envelope) -> bool:  # noqa: ARG002 - as above
        """Return True."""
        return True

    async def recheck_with_new_keys(self, envelope: Envelope) -> BusError | None:  # noqa: ARG002 - as above
        """Return None: every message is authorized."""
        return None

    def refresh_keys(self) -> None:
        """Do nothing: there are no keys."""


class AnonymousIdentity:
    """The identity of a service without keys and grants."""

    is_anonymous = True

    def __init__(self) -> None:
        self.signer = NullSigner()
        self.verifier = NullVerifier()
        self.control = OPEN_CONTROL

    async def start(self) -> None:
        """Do nothing: there are no keys to read."""

    async def close(self) -> None:
        """Do nothing."""

    def check_signing_key(self) -> None:
        """Do nothing: no message is signed."""

    def guard(self, contract: Contract, *, is_open: bool = False) -> OpenGuard:  # noqa: ARG002 - the parameters of `ServiceIdentity`
        """Return a guard that authorizes every message."""
        return OpenGuard()

    def may_access_jobs(self, service: str, right: str, job: str) -> bool:  # noqa: ARG002 - as above
        """Return False: without grants, only the submitter may ask about its jobs."""
        return False

    def check_subscriptions(self, contracts: Iterable[Contract]) -> None:
        """Do nothing: without grants a service may consume every event."""


ANONYMOUS = AnonymousIdentity()
