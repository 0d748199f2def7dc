"""The client stack and the server stack: the policies that each message passes through."""

import time
from collections.abc import Callable, Sequence
from logging import getLevelNamesMapping
from typing import Literal

from bus.contracts.contract import CATALOG
from bus.messaging.handler import Middleware
from bus.messaging.jobs.questions import is_question
from bus.messaging.resilience.destinations import Destination
from bus.middleware.authorize import authorize
from bus.middleware.bulkhead import bulkhead
from bus.middleware.cache import CacheAccess, cache
from bus.middleware.circuit_breaker import circuit_breaker
from bus.middleware.deadline import client_deadline, server_deadline
from bus.middleware.encrypt import encrypt
from bus.middleware.hedge import hedge
from bus.middleware.logging import logging
from bus.middleware.resend import resend
from bus.middleware.retry import retry
from bus.middleware.sign import sign
from bus.middleware.spans import SpanSource, client_spans
from bus.middleware.tracing import tracing
from bus.security.anonymous import AnonymousIdentity
from bus.security.message_security import MessageSecurity

__all__ = [
    "CLIENT",
    "SERVER",
    "call_policies",
    "client_stack",
    "server_stack",
    "with_security",
    "with_spans",
]


def client_stack(*, clock: Callable[[], float] = time.time) -> list[Middleware]:
    """Return the policies for messages that are sent. The outermost policy is first.

    Args:
        clock: Function that returns the current time in seconds since the epoch.
    """
    return [
        tracing(),  # outermost: it sets the correlation id that the log line shows
        logging("sent"),  # outside `resend`: one line for a message, with the time of all attempts
        client_deadline(clock=clock),  # outside `resend`: one deadline limits all attempts
        resend(clock=clock),  # innermost: it repeats only the security policies and the send
    ]


def call_policies(
    destination: Destination,
    *,
    is_sent: Callable[[str], bool] = lambda _: True,
    access: CacheAccess | None = None,
    waits: Middleware | None = None,
) -> list[Middleware]:
    """Return the policies for the requests to one destination. The outermost policy is first.

    The bus adds these policies inside every client stack, and outside the security policies. A
    policy that the destination does not need is left out, so that it costs nothing.

    Args:
        destination: The called operation, with the state of its policies.
        is_sent: Function that returns True if the request with this message id was sent, and waits
            for its reply.
        access: Access to the kept replies. None: no reply is kept.
        waits: Middleware that lets a request wait until a service serves it. None: no request
            waits.
    """
    # The order, from the outside: cache, retry, hedge, circuit breaker, bulkhead. The fallback is
    # outside the whole client stack, because it also replaces what is left after the resends.
    policy, contract = destination.policy, CATALOG.get(destination.type)
    layers: list[Middleware] = []
    keeps_replies = contract is not None and contract.cache is not None and policy.cache
    if keeps_replies and access is not None:
        # Outside all other policies: a kept reply costs the called service nothing.
        layers.append(cache(destination, access))
    # The retry policy also sets the time of an attempt, and refills the budget of the hedges.
    if policy.retries != 0 or policy.attempt_timeout is not None or policy.hedge_after is not None:
        layers.append(retry(destination))
    # Two services can handle the two copies of a request, so only an idempotent one has a copy.
    if policy.hedge_after is not None and contract is not None and contract.idempotent:
        layers.append(hedge(destination, is_sent=is_sent))
    if waits is not None:
        # Inside `hedge`: a request that waits is not late. Outside the circuit breaker and the
        # bulkhead: it holds no permit of them while it waits.
        layers.append(waits)
    # The handles of jobs ask at growing intervals by themselves, also while the service is away.
    if destination.breaker is not None and not is_question(destination.type):
        # Inside `retry` and `hedge`: each attempt counts. Outside the bulkhead: a request that the
        # breaker rejects takes no place.
        layers.append(circuit_breaker(destination, destination.breaker))
    if destination.bulkhead is not None:
        # Innermost: a request holds a permit only while it waits for its own reply.
        layers.append(bulkhead(destination, destination.bulkhead))
    return layers


def with_security(layers: Sequence[Middleware], security: MessageSecurity) -> list[Middleware]:
    """Return the client stack `layers`. Add the security policies as the innermost layers.

    The bus adds these policies to every client stack, so that a custom stack cannot omit them.

    At the server, inbound stages (`bus/runtime/inbound.py`) verify and decrypt each message. These
    stages run before the server stack. If the inbound stages ran later, an unverified message could
    receive the result of an earlier message with the same id. Retry copies and dead letters stay
    encrypted.

    Args:
        layers: Client stack. The outermost policy is first.
        security: Identity and cipher of the service.
    """
    identity = security.identity
    if isinstance(identity, AnonymousIdentity):
        return [*layers, encrypt(security.cipher)]
    return [
        *layers,
        authorize(
            identity.check_send_permission
        ),  # outermost: it rejects a message before the encryption
        encrypt(security.cipher),  # inside `resend`: each attempt has its own data key
        sign(
            identity.signer
        ),  # innermost: the signature of each attempt covers the encrypted payload
    ]


def with_spans(layers: Sequence[Middleware], source: SpanSource | None) -> list[Middleware]:
    """Return the client stack `layers`. Add the recording of spans as the outermost layer.

    The bus adds this layer to every client stack, as it adds the security policies. So a service
    with a custom stack has spans, too. At the server an inbound stage records the spans.

    Args:
        layers: Client stack. The outermost policy is first.
        source: Recorder of the bus, or None if no span is recorded.
    """
    return [*layers] if source is None else [client_spans(source), *layers]


def server_stack(
    *,
    clock: Callable[[], float] = time.time,
    leeway: float = 30,
    longest: float = 10,
    log_messages: Literal["debug", "info"] = "debug",
) -> list[Middleware]:
    """Return the policies for messages that are handled. The outermost policy is first.

    Args:
        clock: Function that returns the current time in seconds since the epoch.
        leeway: Seconds by which the clocks of two machines may differ.
        longest: Maximum seconds to handle a request that has no deadline.
        log_messages: Level of the line for each handled message.
    """
    return [
        # outermost: logs the total time and `DeadlineExceeded`
        logging("handled", level=getLevelNamesMapping()[log_messages.upper()]),
        server_deadline(clock=clock, leeway=leeway, longest=longest),  # innermost: ends the handler
    ]


CLIENT = tuple(client_stack())
"""Default client stack. To add a policy, pass `Bus(…, client=[*CLIENT, policy])`."""
SERVER = tuple(server_stack())
"""Default server stack. To add a policy, pass `Bus(…, server=[*SERVER, policy])`.

The stack uses the default arguments of `server_stack`, not the values in the settings.
"""
