"""The two tables of contents: every policy that a message passes, outermost first."""

import time
from collections.abc import Callable, Sequence

from bus.contracts.contract import Contract
from bus.errors import PermissionDenied
from bus.messaging.handler import Middleware
from bus.middleware.authorize import authorize
from bus.middleware.deadline import client_deadline, server_deadline
from bus.middleware.encrypt import encrypt
from bus.middleware.logging import logging
from bus.middleware.retry import retry
from bus.middleware.sign import sign
from bus.middleware.tracing import tracing
from bus.security.encryption import PayloadCipher
from bus.security.signer import Signer

__all__ = ["CLIENT", "SERVER", "client_stack", "server_stack", "with_security"]


def client_stack(*, clock: Callable[[], float] = time.time) -> list[Middleware]:
    """What is sent passes these. `deadline` bounds all attempts together; `retry` is below it."""
    return [tracing(), logging("sent"), client_deadline(clock=clock), retry(clock=clock)]


def with_security(
    layers: Sequence[Middleware],
    cipher: PayloadCipher,
    signer: Signer | None,
    refusal: Callable[[Contract], PermissionDenied | None] | None = None,
) -> list[Middleware]:
    """`layers`, and innermost `permit`, `seal` and `sign`, whoever made the list: so nobody leaves them out by a list of his own.

    Their counterparts stand in no list. What verifies comes before the server's stack, where the receiver looks at what it knows of a
    message (`bus.security.endpoint_guard.Gate`): what is not verified must not be answered from memory, nor join what is under way. The
    receiver opens payloads, too (`bus.security.encryption.Cipher`): retries and dead letters keep them sealed.
    """
    permitted = [authorize(refusal)] if refusal is not None else []
    signed = [sign(signer)] if signer is not None else []
    return [*layers, *permitted, encrypt(cipher), *signed]


def server_stack(
    *, clock: Callable[[], float] = time.time, leeway: float = 30, longest: float = 10
) -> list[Middleware]:
    """What is handled passes these; `leeway` (between two machines' clocks) and `longest` (of a request without a deadline) in seconds."""
    return [logging("handled"), server_deadline(clock=clock, leeway=leeway, longest=longest)]


CLIENT = tuple(client_stack())
"""The default, for lists of one's own: `Bus(…, client=[*CLIENT, mine])`."""
SERVER = tuple(server_stack())
