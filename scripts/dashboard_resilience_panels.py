"""The row of the Grafana dashboard about the policies of callers and services."""

from dashboard_queries import (
    BY_OPERATION,
    BY_SENDER,
    GREEN,
    OF_OPERATION,
    ORANGE,
    RED,
    Panel,
    Query,
    Row,
    rate,
    series,
)

from bus.messaging.instruments import (
    BREAKER_CHANGES,
    BREAKER_STATE,
    BULKHEAD_IN_FLIGHT,
    BULKHEAD_WAITING,
    CACHE_LOOKUPS,
    CALLS_HEDGED,
    CALLS_REJECTED,
    CALLS_RETRIED,
    CHAOS_FAULTS,
    FALLBACKS,
    RETRY_BUDGET_TOKENS,
    SHED,
)

__all__ = ["RESILIENCE"]

RESILIENCE = Row(
    "What is rejected, and why?",
    (
        Panel(
            title="Circuit breakers",
            description="The worst state in all processes of a caller: of an operation that it "
            "calls, or of a dependency for which it pauses its queues. Run `bus breakers list`.",
            queries=(
                Query(
                    f"max by (service, name) ({series(BREAKER_STATE)})", "{{name}} from {{service}}"
                ),
            ),
            kind="state-timeline",
            width=12,
            mappings={
                "0": ("closed", GREEN),
                "1": ("half-open", ORANGE),
                "2": ("open", RED),
                "3": ("isolated", "purple"),
            },
        ),
        Panel(
            title="Changes of circuit breakers",
            description="Changes to a state in a second. A breaker that opens again and again has "
            "a service that is down, or a threshold that is too low.",
            queries=(
                Query(
                    rate("service, name, state", BREAKER_CHANGES),
                    "{{name}} from {{service}} {{state}}",
                ),
            ),
            width=12,
        ),
        Panel(
            title="Calls that a policy rejected",
            description="By the circuit breaker, the bulkhead, or the retry budget, which rejects "
            "only repetitions. The called service has not received them.",
            queries=(
                Query(
                    rate(f"{BY_OPERATION}, policy", CALLS_REJECTED), f"{BY_SENDER} {{{{policy}}}}"
                ),
            ),
            unit="mps",
        ),
        Panel(
            title="Repeated calls",
            description="Retries after an error of the called service, and hedges after a slow "
            "reply.",
            queries=(
                Query(rate(BY_OPERATION, CALLS_RETRIED), f"{BY_SENDER} retried"),
                Query(rate(BY_OPERATION, CALLS_HEDGED), f"{BY_SENDER} hedged"),
            ),
            unit="mps",
        ),
        Panel(
            title="Tokens for retries",
            description="The least number in one process. Without a token a failed call is not "
            "repeated.",
            queries=(
                Query(
                    f"min by (service, destination) ({series(RETRY_BUDGET_TOKENS)})",
                    "{{destination}} from {{service}}",
                ),
            ),
        ),
        Panel(
            title="Requests refused by their service",
            description="Because of an overload (deadline, criticality, age), or because their "
            "caller exceeds its rate. Run `bus services NAME` for slots and durations.",
            queries=(
                Query(rate(f"{BY_OPERATION}, reason", SHED), f"{OF_OPERATION} {{{{reason}}}}"),
            ),
            unit="mps",
        ),
        Panel(
            title="Calls in flight, and calls that wait",
            description="Calls to one service in all processes of a caller. A call waits if "
            "`max_in_flight` calls of its process are in flight.",
            queries=(
                Query(
                    f"sum by (service, destination) ({series(BULKHEAD_IN_FLIGHT)})",
                    "{{destination}} from {{service}}",
                ),
                Query(
                    f"sum by (service, destination) ({series(BULKHEAD_WAITING)})",
                    "{{destination}} from {{service}} waiting",
                ),
            ),
        ),
        Panel(
            title="Replies without a call",
            description="Lookups in the cache by outcome, and failed calls that got a fallback.",
            queries=(
                Query(
                    rate(f"{BY_OPERATION}, outcome", CACHE_LOOKUPS), f"{BY_SENDER} {{{{outcome}}}}"
                ),
                Query(rate(BY_OPERATION, FALLBACKS), f"{BY_SENDER} fallback"),
            ),
            unit="mps",
        ),
        Panel(
            title="Injected faults",
            description="Faults of a chaos experiment. Run `bus chaos status`.",
            queries=(
                Query(
                    rate(f"{BY_OPERATION}, fault", CHAOS_FAULTS), f"{OF_OPERATION} {{{{fault}}}}"
                ),
            ),
            unit="mps",
            width=24,
        ),
    ),
)
