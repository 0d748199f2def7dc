"""The two tables of contents: every policy that a message passes, outermost first."""

import time
from collections.abc import Callable, Sequence

from bus.messaging.handler import Middleware
from bus.middleware.authorize import authorize
from bus.middleware.deadline import client_deadline, server_deadline
from bus.middleware.encrypt import encrypt
from bus.middleware.logging import logging
from bus.middleware.retry import retry
from bus.middleware.sign import sign
from bus.middleware.tracing import tracing
from bus.security.anonymous import AnonymousIdentity
from bus.security.message_security import MessageSecurity

__all__ = ["CLIENT", "SERVER", "client_stack", "server_stack", "with_security"]


def client_stack(*, clock: Callable[[], float] = time.time) -> list[Middleware]:
    """What is sent passes these. `deadline` bounds all attempts together; `retry` is below it."""
    return [tracing(), logging("sent"), client_deadline(clock=clock), retry(clock=clock)]


def with_security(layers: Sequence[Middleware], security: MessageSecurity) -> list[Middleware]:
    """Return `layers`, and innermost `authorize`, `encrypt` and `sign`, so that no list of a user leaves them out.

    Their counterparts at the server are inbound stages (`bus/runtime/inbound.py`). They come before the
    server's stack, because a message that is not verified must not be answered from memory.
    """
    identity = security.identity
    if isinstance(identity, AnonymousIdentity):
        return [*layers, encrypt(security.cipher)]
    return [
        *layers,
        authorize(identity.check_send_permission),
        encrypt(security.cipher),
        sign(identity.signer),
    ]


def server_stack(
    *, clock: Callable[[], float] = time.time, leeway: float = 30, longest: float = 10
) -> list[Middleware]:
    """What is handled passes these; `leeway` (between two machines' clocks) and `longest` (of a request without a deadline) in seconds."""
    return [logging("handled"), server_deadline(clock=clock, leeway=leeway, longest=longest)]


CLIENT = tuple(client_stack())
"""The default, for lists of one's own: `Bus(…, client=[*CLIENT, mine])`."""
SERVER = tuple(server_stack())
