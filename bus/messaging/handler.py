"""Types of handlers and middlewares. A handler and a middleware are functions.

The idea is from Eriksen, "Your Server as a Function" (2013). The paper calls a handler a service,
and a middleware a filter.
"""

from collections.abc import Awaitable, Callable, Sequence
from functools import reduce

from bus.messaging.envelope import Envelope

__all__ = ["Handler", "Middleware", "compose"]

Handler = Callable[[Envelope], Awaitable[Envelope | None]]
"""Asynchronous function. It receives an envelope, and returns the reply's envelope or None."""

Middleware = Callable[[Handler], Handler]
"""Function that receives a handler, and returns a handler with one more policy.

Middlewares of the client and of the server have this type. See `bus.CLIENT` and `bus.SERVER`.

>>> def counting(inner: Handler) -> Handler:
...     async def call(envelope: Envelope) -> Envelope | None:
...         count[envelope.type] += 1
...         return await inner(envelope)
...
...     return call
"""


def compose(layers: Sequence[Middleware], handler: Handler) -> Handler:
    """Wrap a handler in middlewares.

    Args:
        layers: Middlewares. The outermost is first. If the list is empty, the result is the handler
            itself.
        handler: Innermost handler.

    Returns:
        The outermost handler.
    """
    return reduce(lambda inner, layer: layer(inner), reversed(layers), handler)
