"""A module whose import fails: a method in a class body, with deferred annotations."""

from __future__ import annotations

from bus.runtime.router import Router
from tests.unit.ledger import Add, Total


class AtTop:
    @Router("ledger").request(Add)  # type: ignore[arg-type]
    async def add(self: AtTop, request: Add) -> Total:  # type: ignore[misc]
        return Total(total=1)
