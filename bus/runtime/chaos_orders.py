"""The orders of a chaos experiment, and the check of the operations in `BUS_CHAOS`."""

import logging
from collections.abc import Callable, Collection

from bus.contracts.contract import CATALOG
from bus.errors import ConfigurationError
from bus.messaging.orders import StartChaos, StopChaos, Why
from bus.messaging.resilience.chaos import Chaos
from bus.messaging.resilience.chaos_grammar import ChaosSyntaxError, parse_chaos
from bus.messaging.resilience.chaos_plan import EVERY_OPERATION, ChaosPlan
from bus.messaging.suggestions import did_you_mean
from bus.runtime.order_executor import OrderExecutor

__all__ = ["add_chaos_orders", "check_chaos_targets"]

log = logging.getLogger("bus.chaos")


def add_chaos_orders(
    executor: OrderExecutor, chaos: Chaos, served: Callable[[], Collection[str]]
) -> None:
    """Let an executor obey the orders to start and to stop an experiment.

    Args:
        executor: Executor of the process.
        chaos: Experiment of the process.
        served: Returns the types that the process handles now.
    """

    def start(order: StartChaos, operator: str) -> int | Why:
        try:
            plan = parse_chaos(order.plan)
        except ChaosSyntaxError:  # a plan of a later version
            return "not-understood"
        matched = sum(map(plan.matches, served()))
        if not matched:
            return "not-found"
        chaos.start(plan, by=operator, reason=order.reason, until=order.until / 1000)
        return matched

    def stop(order: StopChaos, operator: str) -> int | Why:
        is_stopped = chaos.stop(f"the operator {operator} stopped it ({order.reason})")
        return 1 if is_stopped else "not-found"

    executor.add(StartChaos, start)
    executor.add(StopChaos, stop)


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
