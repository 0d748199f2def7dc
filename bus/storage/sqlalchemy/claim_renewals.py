"""Renewals of the claims of this process: one statement for all of them."""

import asyncio
import logging

from bus.errors import BusError
from bus.messaging.timers import loop_time
from bus.storage.sqlalchemy.claims import Claim, Claims

__all__ = ["ClaimRenewals"]

log = logging.getLogger("bus.inbox")

RENEWALS_PER_LEASE = 3
"""Number of renewals within one lease. So one missed renewal changes nothing."""


class ClaimRenewals:
    """The claims whose handlers run in this process now.

    A claim is renewed after a third of its lease. So most handlers need no renewal, and without one
    no statement is sent.
    """

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._due: dict[Claim, float] = {}
        """Time of the loop from which a claim needs its next renewal."""
        self._lease = 0.0
        self._task: asyncio.Task[None] | None = None

    def add(self, claim: Claim, lease: float) -> None:
        """Renew a claim until `discard`. All claims of a process have the same lease."""
        self._lease = lease
        self._due[claim] = loop_time() + lease / RENEWALS_PER_LEASE
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="renewals of claims")

    def discard(self, claim: Claim) -> None:
        """Stop renewing a claim."""
        self._due.pop(claim, None)

    async def close(self) -> None:
        """Stop all renewals."""
        self._due.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        while self._due:
            await asyncio.sleep(self._lease / RENEWALS_PER_LEASE / 2)
            now = loop_time()
            due = [claim for claim, at in self._due.items() if at <= now]
            if due:
                await self._renew(due)

    async def _renew(self, due: list[Claim]) -> None:
        interval = self._lease / RENEWALS_PER_LEASE
        try:
            # The sleep has the same length, so a second try begins before the lease has ended.
            async with asyncio.timeout(interval / 2):
                valid = await self._claims.renew(due, lease=self._lease)
        except (BusError, TimeoutError) as error:
            log.debug("%d claims could not be renewed: %s", len(due), type(error).__name__)
            return  # they stay due, and are renewed in the next turn
        for claim in due:
            if claim not in valid:
                self._due.pop(claim, None)
            elif claim in self._due:
                self._due[claim] = loop_time() + interval
