"""The order of the policies in both stacks, and the policies that are left out."""

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bus.contracts.contract import Message, Request, contract
from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware, compose
from bus.messaging.resilience.call_policy import DEFAULT_POLICY, CallPolicy
from bus.messaging.resilience.destinations import Destinations
from bus.middleware.cache import CacheAccess
from bus.middleware.spans import SpanSource
from bus.middleware.stacks import (
    call_policies,
    client_stack,
    server_stack,
    with_security,
    with_spans,
)
from bus.runtime.cache_access import cache_access
from bus.runtime.inbound import INBOUND
from bus.security.message_security import NO_SECURITY
from tests.unit.fakes import FakeTransport, envelope, runtime_of, virtual
from tests.unit.ledger import Total

EVERYTHING = CallPolicy(attempt_timeout=1, hedge_after=0.5)
NOTHING = CallPolicy(retries=0, breaker=None, max_in_flight=None, retry_budget=None)


class Rate(Message):
    rate: int


@contract("stacks.rate", version=1, idempotent=True, cache=60)
class GetRate(Request[Rate]):
    pass


@contract("stacks.set", version=1)
class SetRate(Request[Total]):
    pass


def names(layers: list[Middleware]) -> list[str]:
    """Return the names of the functions that made these layers."""
    return [cast("Any", layer).__qualname__.partition(".")[0] for layer in layers]


def policies(policy: CallPolicy, type_: str = "stacks.rate.v1") -> list[Middleware]:
    destinations = Destinations({"stacks": policy}, DEFAULT_POLICY, timer=time.monotonic)
    access: CacheAccess = cache_access(runtime_of(FakeTransport()))
    return call_policies(destinations.of(type_), access=access)


def test_the_policies_of_a_client_have_one_order() -> None:
    """Read from the outside: a policy sees only the messages that the outer policies let pass.

    A kept reply touches no inner policy. The budget counts retries and hedges. The breaker counts
    each attempt. A rejected request takes no place in the bulkhead, and is not encrypted.
    """
    stack = with_spans(client_stack(), cast("SpanSource", object()))
    identity = SimpleNamespace(check_send_permission=None, signer=None)
    security = replace(NO_SECURITY, identity=cast("Any", identity))
    inner = with_security(policies(EVERYTHING), security)
    assert names([*stack, *inner]) == [
        *("client_spans", "tracing", "logging", "client_deadline", "resend"),
        *("cache", "retry", "hedge", "circuit_breaker", "bulkhead"),
        *("authorize", "encrypt", "sign"),
    ]


def test_the_policies_of_a_server_have_one_order() -> None:
    assert names(server_stack())[:1] == ["logging"]
    assert "server_deadline" in names(server_stack())


def test_a_service_with_the_defaults_has_no_hedge_and_no_cache_without_a_contract_of_it() -> None:
    assert names(policies(CallPolicy(), "stacks.set.v1")) == [
        "retry",
        "circuit_breaker",
        "bulkhead",
    ]


@pytest.mark.parametrize(
    ("off", "left_out"),
    [
        ({"cache": False}, "cache"),
        ({"hedge_after": None}, "hedge"),
        ({"breaker": None}, "circuit_breaker"),
        ({"max_in_flight": None}, "bulkhead"),
        ({"retries": 0, "attempt_timeout": None, "hedge_after": None}, "retry"),
    ],
)
def test_a_policy_that_is_off_is_left_out(off: dict[str, Any], left_out: str) -> None:
    assert left_out in names(policies(EVERYTHING))
    assert left_out not in names(policies(replace(EVERYTHING, **off)))


def test_a_request_that_is_not_idempotent_has_no_hedge() -> None:
    assert "hedge" not in names(policies(EVERYTHING, "stacks.set.v1"))


@pytest.mark.parametrize(
    "policy",
    [replace(NOTHING, attempt_timeout=1), replace(NOTHING, hedge_after=1)],
    ids=["attempt time-out", "hedge"],
)
def test_the_retry_policy_stays_without_retries_if_it_has_other_work(policy: CallPolicy) -> None:
    """Let the policy set the time of an attempt, and refill the budget of the hedges."""
    assert "retry" in names(policies(policy))


@virtual
async def test_without_a_policy_a_request_is_passed_on_as_it_is() -> None:
    seen: list[Envelope] = []

    async def inner(sent: Envelope) -> None:
        seen.append(sent)

    layers = policies(NOTHING, "stacks.set.v1")
    assert layers == []
    handler: Handler = compose(layers, inner)
    assert handler is inner
    await handler(envelope("stacks.set.v1"))
    assert len(seen) == 1


def test_the_stages_of_a_server_check_the_sender_before_anything_is_remembered() -> None:
    order = [stage.__name__ for stage in INBOUND]
    known = [
        *("reject_oversized", "join_in_flight", "isolate_poison", "limit_concurrency"),
        *("authenticate", "recall_result", "acknowledge_at_most_once", "deduplicate"),
        *("reject_malformed", "reject_expired", "decrypt", "record_span", "measure"),
    ]
    assert [name for name in order if name in known] == known
