"""Handlers and middlewares: one function type for everything (after "Your Server as a Function", Eriksen 2013)."""

from collections.abc import Awaitable, Callable, Sequence
from functools import reduce

from bus.messaging.envelope import Envelope

__all__ = ["Handler", "Middleware", "compose"]

Handler = Callable[[Envelope], Awaitable[Envelope | None]]
"""Turns an envelope into a reply envelope, or into nothing."""

Middleware = Callable[[Handler], Handler]
"""Wraps a handler; client policies and server policies are the same kind of thing."""


def compose(layers: Sequence[Middleware], handler: Handler) -> Handler:
    """`handler` inside `layers`; the first listed is outermost, and no layers are the handler itself."""
    return reduce(lambda inner, layer: layer(inner), reversed(layers), handler)
