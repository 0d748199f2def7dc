"""A service that answers, fails and calls itself."""

from bus import Bus, Context, NotFound, Router
from bus.testing import MemoryBuses
from tests.unit.ledger import Add, GetTotal, Total

__all__ = ["SECRET", "ledger", "serving"]

SECRET = "Eleonora Quist"


def ledger() -> Router:
    router = Router("ledger")

    @router.request(GetTotal)
    async def get_total(request: GetTotal) -> Total:
        return Total(total=1)

    @router.request(Add)
    async def add(request: Add, context: Context) -> Total:
        if request.amount < 0:
            raise NotFound(f"there is no account of {SECRET}")
        return await context.bus.request(GetTotal())

    return router


async def serving(buses: MemoryBuses, router: Router) -> Bus:
    bus = await buses.bus(router.name)
    await buses.serve(bus, router)
    return bus
