"""Handlers with deferred annotations, and decorators of another module than their handlers."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

from bus.messaging.context import Context
from bus.runtime.dependencies import Depends
from bus.runtime.router import Router
from tests.unit.ledger import Add, Total

if TYPE_CHECKING:
    from decimal import Decimal

    from bus.messaging.context import Context as LateContext

__all__ = [
    "Counting",
    "local_handler",
    "method_of_local_class",
    "passing_on",
    "returns_number",
    "sync_passing_on",
    "with_context",
    "with_dependency",
    "with_hidden_name",
    "with_late_context",
    "with_late_dependency",
    "with_late_message",
    "with_late_optional_context",
    "with_optional_context",
]


class Pool:
    size = 10


def open_pool() -> Pool:
    return Pool()


def name() -> int:
    """Return a number. Functions of the bus and of fast-depends have local variables `name`."""
    return 5


async def with_dependency(request: Add, pool: Annotated[Pool, Depends(open_pool)]) -> Total:
    return Total(total=request.amount + pool.size)


async def with_hidden_name(request: Add, number: Annotated[int, Depends(name)]) -> Total:
    return Total(total=request.amount + number)


async def returns_number(request: Add) -> int:
    return request.amount


async def with_context(request: Add, context: Context) -> Total:
    return Total(total=request.amount + len(context.state))


async def with_optional_context(request: Add, context: Context | None = None) -> Total:
    return Total(total=0 if context is None else len(context.state))


async def with_late_dependency(request: Add, rate: Annotated[Decimal, Depends(open_pool)]) -> Total:
    return Total(total=0)


async def with_late_context(request: Add, context: LateContext) -> Total:
    return Total(total=0)


async def with_late_optional_context(request: Add, context: LateContext | None = None) -> Total:
    return Total(total=0)


async def with_late_message(request: Decimal) -> Total:
    return Total(total=0)


def local_handler(router: Router) -> None:
    """Register a handler whose annotations name local variables of this function."""

    class LocalPool:
        size = 20

    def open_local() -> LocalPool:
        return LocalPool()

    @router.request(Add)
    async def add(request: Add, pool: Annotated[LocalPool, Depends(open_local)]) -> Total:
        return Total(total=request.amount + pool.size)


def method_of_local_class(router: Router) -> None:
    """Register a method of an object, as a class does in `__init__`."""

    class LocalPool:
        size = 30

    def open_local() -> LocalPool:
        return LocalPool()

    class Adder:
        def __init__(self) -> None:
            router.request(Add)(self.add)

        async def add(self, request: Add, pool: Annotated[LocalPool, Depends(open_local)]) -> Total:
            return Total(total=request.amount + pool.size)

    Adder()


def passing_on(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


def sync_passing_on(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Awaitable[Any]:
        return function(*args, **kwargs)

    return wrapper


class Counting:
    """A decorator in the form of a class, whose objects are called with `async`."""

    def __init__(self, function: Callable[..., Awaitable[Any]]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.calls = 0

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return await self.function(*args, **kwargs)
