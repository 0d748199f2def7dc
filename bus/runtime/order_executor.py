"""The executor of orders: it checks the end of an order, applies it, and logs what it has done."""

import logging
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, TypeVar

from bus.messaging.labels import one_line
from bus.messaging.orders import Applied, Order, OrderResult, Why, reason_to_ignore
from bus.messaging.service_info import InstanceState
from bus.messaging.timers import utc_date_and_time

__all__ = ["OrderExecutor"]

log = logging.getLogger("bus.orders")

O = TypeVar("O", bound=Order)  # noqa: E741 - as `R` of replies
Effect = Applied | int | Why
"""Effect of an order, the number of objects that it has changed, or why it was ignored."""


class OrderExecutor:
    """Obeys the orders of operators in one process."""

    def __init__(
        self, state: Callable[[], InstanceState], *, clock: Callable[[], float], leeway: float
    ) -> None:
        """Create an executor that cannot obey any order yet.

        Args:
            state: Returns the state of the process.
            clock: Returns seconds since the epoch.
            leeway: Seconds by which the clocks of two machines may differ.
        """
        self._state, self._clock, self._leeway = state, clock, leeway
        self._functions: dict[type[Order], Callable[[Any, str], Effect | Awaitable[Effect]]] = {}

    def add(self, kind: type[O], apply: Callable[[O, str], Effect | Awaitable[Effect]]) -> None:
        """Obey one kind of order from now on.

        Args:
            kind: Class of the orders.
            apply: Function that receives an order and the name of its operator. It returns
                its effect, the number of objects that it has changed, or why it has ignored the
                order. It can return an awaitable of these values.
        """
        self._functions[kind] = apply

    async def execute(self, order: Order, operator: str) -> OrderResult:
        """Obey an order of an operator with the right to give it, and return the answer."""
        state = self._state()
        apply = self._functions.get(type(order))
        done: Effect | None = reason_to_ignore(order, self._clock(), self._leeway)
        if done is None:
            effect = "not-understood" if apply is None else apply(order, operator)
            done = await effect if isawaitable(effect) else effect
        why = done if isinstance(done, str) else None
        if not isinstance(done, Applied):
            done = Applied(changed=done if isinstance(done, int) else 0)
        facts: dict[str, object] = {
            "service": state.service,
            "operator": operator,
            "order": order.name,
            "reason": order.reason,
            "outcome": why or "applied",
        }
        ends = order.ends_at
        if ends is not None:
            facts["until"] = order.until
        done_text = f". It was ignored: {why}" if why is not None else f": {order.reason}"
        # The reason of an operator is a text for operators: it is not data of a message.
        log.warning(
            "%s: the operator %s gave the order to %s%s%s",
            state.service,
            one_line(operator),
            one_line(order.subject),
            "" if ends is None else f" until {utc_date_and_time(ends)}",
            one_line(done_text),
            extra=facts,
        )
        return OrderResult(
            **state.model_dump(),
            outcome="applied" if why is None else "ignored",
            why=why,
            changed=done.changed,
            unused=done.unused,
            stored=done.stored,
        )
