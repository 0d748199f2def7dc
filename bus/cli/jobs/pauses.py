"""The pauses of consumers that a store keeps."""

import time
from collections.abc import Mapping

from bus.messaging.jobs.pauses import Pause
from bus.messaging.ports.store import Store

__all__ = ["pauses_of"]


async def pauses_of(store: Store) -> Mapping[str, Pause]:
    """Return the pauses that hold now, by work queue."""
    now = time.time()
    return {
        each.queue: each for each in await store.pauses() if each.until is None or each.until > now
    }
