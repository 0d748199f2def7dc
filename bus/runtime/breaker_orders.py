"""The orders that isolate and reset the circuit breakers of one process."""

from bus.contracts.contract import CATALOG
from bus.messaging.orders import IsolateBreaker, ResetBreaker, Why
from bus.messaging.resilience.destinations import Destinations
from bus.runtime.order_executor import OrderExecutor

__all__ = ["add_breaker_orders"]


def add_breaker_orders(executor: OrderExecutor, service: str, destinations: Destinations) -> None:
    """Let an executor obey the orders for circuit breakers.

    Args:
        executor: Executor of the process.
        service: Service of the process.
        destinations: The operations that the process calls, with the breakers of the process.
    """

    def isolate(order: IsolateBreaker, operator: str) -> int | Why:
        if order.kind != "dependency":
            create_breaker(service, destinations, order.breaker)
        found = destinations.breakers.get(order.breaker, order.kind)
        for breaker in found:
            breaker.isolate(order.until, operator, order.reason)
        return len(found) or "not-found"

    def reset(order: ResetBreaker, operator: str) -> int | Why:
        found = destinations.breakers.get(order.breaker, order.kind)
        for breaker in found:
            breaker.reset(operator, order.reason)
        return len(found) or "not-found"

    executor.add(IsolateBreaker, isolate)
    executor.add(ResetBreaker, reset)


def create_breaker(service: str, destinations: Destinations, type_: str) -> None:
    """Create the breaker of an operation that the process can call, but has not called yet.

    Without it, the first call after an order would be sent. The process can only call an operation
    if it has imported the contract. So a misspelt name creates nothing. A service has imported its
    own contracts only to serve them.
    """
    if any(
        contract.type == type_ and contract.kind == "request" and contract.service != service
        for contract in CATALOG
    ):
        destinations.of(type_)
