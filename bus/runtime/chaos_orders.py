"""The orders of a chaos experiment, and the check of the operations in `BUS_CHAOS`."""

import logging
from collections.abc import Callable, Collection

from bus.contracts.contract import CATALOG, Contract
from bus.errors import ConfigurationError
from bus.messaging.orders import Applied, StartChaos, StopChaos, Why
from bus.messaging.resilience.chaos import Chaos
from bus.messaging.resilience.chaos_grammar import ChaosSyntaxError, parse_chaos
from bus.messaging.resilience.chaos_plan import (
    EVERY_OPERATION,
    FAULT_LIMITS,
    ChaosPlan,
    Fault,
)
from bus.messaging.suggestions import did_you_mean
from bus.runtime.order_executor import OrderExecutor

__all__ = ["SETTINGS", "SETTINGS_REASON", "add_chaos_orders", "check_chaos_targets"]

log = logging.getLogger("bus.chaos")

SETTINGS, SETTINGS_REASON = "the settings", "BUS_CHAOS, or chaos in the code"
"""Operator and reason of an experiment that the settings of the process start."""


def add_chaos_orders(
    executor: OrderExecutor, chaos: Chaos, served: Callable[[], Collection[str]]
) -> None:
    """Let an executor obey the orders to start and to stop an experiment.

    Args:
        executor: Executor of the process.
        chaos: Experiment of the process.
        served: Returns the types that the process handles now.
    """

    def start(order: StartChaos, operator: str) -> Applied | Why:
        try:
            plan = parse_chaos(order.plan)
        except ChaosSyntaxError:  # a plan of a later version
            return "not-understood"
        contracts = _contracts_of(served())
        matched = sum(plan.matches(each.type) for each in contracts)
        unused = _unused_faults(plan, contracts)
        if not matched:
            return "not-found"
        if len(unused) == len(plan.faults):
            return "no-effect"
        chaos.start(plan, by=operator, reason=order.reason, until=order.until / 1000)
        return Applied(changed=matched, unused=unused)

    def stop(order: StopChaos, operator: str) -> int | Why:
        is_stopped = chaos.stop(f"the operator {operator} stopped it ({order.reason})")
        return 1 if is_stopped else "not-found"

    executor.add(StartChaos, start)
    executor.add(StopChaos, stop)


def _contracts_of(types: Collection[str]) -> list[Contract]:
    return [each for each in CATALOG if each.type in types]


def _unused_faults(plan: ChaosPlan, contracts: Collection[Contract]) -> tuple[int, ...]:
    """Return the numbers of the faults that cannot affect any of the contracts, from 0."""
    return tuple(
        number
        for number, (rule, fault) in enumerate(plan.faults)
        if not any(rule.matches(each.type) and _affects(fault, each) for each in contracts)
    )


def _affects(fault: Fault, contract: Contract) -> bool:
    """Return False if the fault is never injected into messages of the contract.

    The stage `inject_delivery_faults` drops only replies to requests. It never repeats a request
    that runs at most once.
    """
    if fault.kind == "drop-reply":
        return contract.kind == "request"
    return fault.kind != "duplicate" or contract.kind != "request" or contract.idempotent


def check_chaos_targets(plan: ChaosPlan, service: str, served: Collection[str]) -> None:
    """Check that the plan in `BUS_CHAOS` can affect a router.

    The services of one process share the variable, so an operation of another service is valid.

    Args:
        plan: The plan.
        service: Service of the router.
        served: The types that the router handles.

    Raises:
        ConfigurationError: The plan names an operation of this service that does not exist.
    """
    for rule in plan.rules:
        is_own = rule.target.partition(".")[0] == service
        # Another router of this service can serve an operation that exists.
        if is_own and not any(map(rule.matches, (*served, *(each.type for each in CATALOG)))):
            hint = did_you_mean(
                rule.target, {each.rpartition(".v")[0] for each in served} | {*served}
            )
            raise ConfigurationError(
                f"BUS_CHAOS: {service} does not serve {rule.target}{hint or '.'} Correct it, or "
                f"write {EVERY_OPERATION} for every operation."
            )
    if not any(map(plan.matches, served)):
        log.warning(
            "%s: BUS_CHAOS names no operation that this service handles, so it injects no faults",
            service,
            extra={"service": service},
        )
    contracts, faults = _contracts_of(served), plan.faults
    for number in _unused_faults(plan, contracts):
        rule, fault = faults[number]
        if any(map(rule.matches, served)):
            log.warning(
                "%s: BUS_CHAOS has %s for %s, which does nothing there. %s.",
                service,
                fault.kind,
                rule.target,
                FAULT_LIMITS,
                extra={"service": service, "fault": fault.kind, "target": rule.target},
            )
