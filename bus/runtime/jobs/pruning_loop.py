"""The background task that removes old data from the store of the service."""

import asyncio
import logging
import random
from typing import Final

from bus.errors import BusError
from bus.messaging.failure_location import failure_facts
from bus.messaging.jobs.pruning import Retention
from bus.messaging.jobs.retention import COPIES_SECONDS
from bus.messaging.ports.store import Store
from bus.settings import Settings

__all__ = ["PruningLoop", "retention_of"]

log = logging.getLogger("bus.store")

PRUNE_SECONDS: Final = 300.0
"""Seconds between two prunings of the store, by whichever instance."""


def retention_of(settings: Settings) -> Retention:
    """Return the retention in the settings."""
    inbox = settings.inbox_retention
    return Retention(
        succeeded=settings.retain_succeeded,
        failed=settings.retain_failed,
        inbox=settings.message_ttl + COPIES_SECONDS if inbox is None else inbox,
    )


class PruningLoop:
    """Prunes the store while a bus is open. Of all instances, one prunes at a time."""

    def __init__(
        self, store: Store, settings: Settings, service: str, *, seconds: float = PRUNE_SECONDS
    ) -> None:
        """Create the loop, which prunes the store of a service every `seconds`."""
        self._store, self._service, self._seconds = store, service, seconds
        self._retention = retention_of(settings)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="store pruning")

    async def close(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        while True:
            # Random, so that instances that start together do not ask together.
            await asyncio.sleep(self._seconds * random.uniform(0.2, 1))  # noqa: S311 - not a secret
            try:
                report = await self._store.prune(self._retention, every=self._seconds)
            except BusError as error:
                log.debug(
                    "the store of %s was not pruned: %s",
                    self._service,
                    error.code,
                    extra={"code": error.code},
                )
            except Exception as error:  # noqa: BLE001 - a bug must not end the pruning
                facts = failure_facts(error)
                log.error("the store of %s was not pruned", self._service, extra=facts)  # noqa: TRY400 - a traceback can show values
            else:
                if report is not None and not report.is_empty:
                    log.info(
                        "the store of %s: removed %d payloads, %d jobs and %d handled messages",
                        self._service,
                        report.payloads,
                        report.jobs,
                        report.inbox,
                        extra={
                            "payloads": report.payloads,
                            "jobs": report.jobs,
                            "handled": report.inbox,
                        },
                    )
