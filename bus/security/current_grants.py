"""The grants that a service uses now. The bus reads their file again while the service runs."""

import asyncio
import logging
from collections.abc import Callable

from bus.contracts.contract import CATALOG
from bus.errors import ConfigurationError
from bus.messaging.timers import loop_time
from bus.security.grants import AccessPolicy, Grants, GrantsSource

__all__ = ["GRANTS_INTERVAL_SECONDS", "MIN_GRANTS_INTERVAL_SECONDS", "CurrentGrants"]

log = logging.getLogger("bus.auth")

GRANTS_INTERVAL_SECONDS = 30.0
"""Seconds between two reads of the grants file. A changed right takes effect within this time."""
MIN_GRANTS_INTERVAL_SECONDS = 10.0
"""Minimum seconds between two reads because of a missing right.

Messages without a right must not cause a read each.
"""


class CurrentGrants:
    """The grants of all services, as the file was when it was last read without a fault."""

    def __init__(self, source: GrantsSource, *, timer: Callable[[], float] | None = None) -> None:
        """Begin without permissions. `read` reads the grants.

        Args:
            source: The source of the grants of all services.
            timer: Returns seconds of a monotonic clock. None: the event loop's clock.
        """
        self.policy: AccessPolicy = Grants({})
        """The permissions of every service."""
        self.on_change: list[Callable[[], None]] = []
        """Functions to call after the permissions have changed."""
        self._source = source
        self._timer = timer or loop_time
        self._text: str | None = None
        self._contracts = 0
        """The number of contracts in the catalog when the grants were parsed."""
        self._seen_contracts = 0
        """The number of contracts in the catalog when the grants were last read."""
        self._last_read = float("-inf")
        self._is_faulty = False
        self._last_fault: tuple[str, int, ConfigurationError] | None = None
        """The last text with a fault, the number of contracts then, and the error."""

    def read(self) -> None:
        """Read the grants, and use them from now on.

        The content of the file decides, and not its time of change. Kubernetes replaces a file by
        changing a link. A permission to publish takes effect only if the event's contract is
        imported. So the grants are checked again after new contracts were declared.

        Raises:
            ConfigurationError: The grants cannot be read, or have a fault. The last valid grants
                stay in use.
        """
        self._last_read, self._seen_contracts = self._timer(), len(CATALOG)
        text, contracts = self._source.read(), self._seen_contracts
        if (text, contracts) == (self._text, self._contracts):
            return
        if not text.strip() and (self._text or "").strip():
            # A writer that does not replace the file atomically empties it before it writes.
            raise ConfigurationError(
                f"BUS_GRANTS: {self._source.path} is empty. Write the grants into it, "
                "or a comment if no service may have a permission."
            )
        policy = self._parse(text, contracts)
        is_new, self._text, self._contracts = self._text is not None, text, contracts
        if policy == self.policy:
            return
        self.policy = policy
        if is_new:
            log.info("BUS_GRANTS has changed; the new grants are in use")
        for notify in self.on_change:
            notify()

    def _parse(self, text: str, contracts: int) -> AccessPolicy:
        """Parse a text, unless it is the last text with a fault.

        The file is read again every `GRANTS_INTERVAL_SECONDS`, and parsing it stops the event loop.
        """
        if self._last_fault is not None and self._last_fault[:2] == (text, contracts):
            raise self._last_fault[2].with_traceback(None)
        try:
            policy = self._source.parse(text)
        except ConfigurationError as error:
            self._last_fault = (text, contracts, error)
            raise
        self._last_fault = None
        return policy

    def refresh(self) -> bool:
        """Read the grants again, but at most once in `MIN_GRANTS_INTERVAL_SECONDS`.

        If new contracts were declared, the grants are read in any case. If the grants cannot be
        read, the last valid grants stay in use.

        Returns:
            True if the permissions have changed.
        """
        if (
            self._timer() - self._last_read < MIN_GRANTS_INTERVAL_SECONDS
            and len(CATALOG) == self._seen_contracts
        ):
            return False
        before = self.policy
        try:
            self.read()
        except Exception as error:  # noqa: BLE001 - without later reads, no change counts
            if not self._is_faulty:
                why = str(error) if isinstance(error, ConfigurationError) else type(error).__name__
                log.warning(
                    "the grants cannot be read (%s); the last valid grants stay in use",
                    why,
                    extra={"why": why},
                )
            self._is_faulty = True
        else:
            if self._is_faulty:
                log.info("BUS_GRANTS can be read again")
            self._is_faulty = False
        return self.policy is not before

    async def run(self) -> None:
        """Read the grants every `GRANTS_INTERVAL_SECONDS`, until the task is cancelled."""
        while True:
            await asyncio.sleep(GRANTS_INTERVAL_SECONDS)
            self.refresh()
