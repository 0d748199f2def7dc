"""The queues that a run has unbound, and that its end binds again.

A worker of the earlier code can start at any moment. Without the binding of its queue it would
consume, but receive no message. So no queue stays unbound when a run ends.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from bus.errors import BusError
from bus.operations.topology.prune_model import Decision
from bus.transports.rabbitmq.admin import AdminSession

__all__ = ["UnboundQueues"]

TIMEOUT_SECONDS = 15.0
"""Maximum seconds to bind all queues again."""
FAILED = (
    "its binding is removed and could not be created again ({}). A worker that consumes this queue "
    "receives no message. Run the command again."
)


class UnboundQueues:
    """The steps `unbind` of a run that can be reverted."""

    def __init__(self, broker: AdminSession) -> None:
        self._broker = broker
        self._steps: dict[str, Decision] = {}

    def __bool__(self) -> bool:
        """Return True if a queue is unbound."""
        return bool(self._steps)

    def add(self, step: Decision) -> None:
        """Add a step `unbind`. Add it before its execution, which can be interrupted."""
        self._steps[step.name] = step

    def discard(self, name: str) -> None:
        """Forget a queue that was deleted or bound again."""
        self._steps.pop(name, None)

    async def restore(self) -> Sequence[Decision]:
        """Bind all queues again that still exist.

        Returns:
            A decision `bind` for each queue that is bound again, and `keep` for each other queue.
        """
        results: dict[str, Decision] = {}
        reason = "no answer in time"
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                for step in tuple(self._steps.values()):
                    if await self._broker.depth(step.name) is not None:
                        await self._broker.bind(step.bindings)
                        results[step.name] = replace(step, action="bind")
                    self.discard(step.name)
        except BusError as error:
            reason = str(error).rstrip(".")
        except TimeoutError:
            pass
        for step in self._steps.values():
            detail = FAILED.format(reason)
            results[step.name] = replace(step, action="keep", detail=detail, bindings=())
        return tuple(results.values())
